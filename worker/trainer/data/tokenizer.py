"""Tokenizer specs into reversible maps between text and ids."""

import json
from pathlib import Path
from typing import Any, assert_never

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from stoker.spec.data.tokenizer import Bpe, ByteTokenizer, CharTokenizer, HFTokenizer, Tokenizer
from worker.trainer.data.codec import BytePairs, Bytes, Characters, Codec, Foreign, pieces
from worker.trainer.errors import SpecProblem


def learn_codec(spec: Tokenizer, everything: str, train: str, home: Path) -> Codec:
    """Characters are those of the whole data set, byte pairs those of its training split, others in `home`/data.

    Raises SpecProblem for a directory whose tokenizer cannot be read or has more tokens than it is said to have.
    """
    match spec:
        case ByteTokenizer():
            return Bytes()
        case CharTokenizer():
            return Characters("".join(sorted(set(everything))))
        case Bpe():
            return _learn_pairs(spec, train)
        case HFTokenizer():
            return _read_foreign(spec, home)
        case _:
            assert_never(spec)


def load_codec(text: str) -> Codec:
    """The reverse of `dump`. Raises ValueError or KeyError when it is not such a text."""
    data = json.loads(text)
    match data["type"]:
        case "byte":
            return Bytes()
        case "char":
            return Characters(data["alphabet"])
        case "bpe":
            return BytePairs(tokenizers.Tokenizer.from_str(json.dumps(data["tokenizer"])), data["rows"])
        case "hf":
            inner = tokenizers.Tokenizer.from_str(json.dumps(data["tokenizer"]))
            return Foreign(inner, data["rows"], data["mask"], data["pad"], data["special"])
        case kind:
            raise ValueError(f"unknown tokenizer {kind!r}")


def _read_foreign(spec: HFTokenizer, home: Path) -> Codec:
    at = "data.tokenizer"
    if spec.source is None or spec.vocab_size is None:
        raise SpecProblem(f"{at}: source and vocab_size are filled in when a job is submitted; write them")
    folder = home / "data" / spec.source
    try:
        inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises Exception itself
        raise SpecProblem(f"{at}.source: tokenizer.json of {spec.source} cannot be read: {error}") from error
    most = max(inner.get_vocab(with_added_tokens=True).values(), default=-1)
    for name, token in (("vocab_size", most), ("mask_id", spec.mask_id), ("pad_id", spec.pad_id)):
        if token is not None and token >= spec.vocab_size:
            raise SpecProblem(f"{at}.{name}: {spec.source} has a token {token}, and vocab_size is {spec.vocab_size}")
    return Foreign(inner, spec.vocab_size, spec.mask_id, spec.pad_id, _special(folder / "tokenizer_config.json"))


def _special(path: Path) -> dict[str, str]:
    """What tokenizer_config.json calls its special tokens; nothing where it is not there or not understood."""
    try:
        found: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    named = {key: value for key, value in found.items() if key.endswith("_token")} if isinstance(found, dict) else {}
    written = {key: value.get("content") if isinstance(value, dict) else value for key, value in named.items()}
    return {key: value for key, value in written.items() if isinstance(value, str)}


def _learn_pairs(spec: Bpe, train: str) -> Codec:
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocab_size,
        min_frequency=spec.min_frequency,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(pieces(train), trainer)
    return BytePairs(inner, spec.vocab_size)
