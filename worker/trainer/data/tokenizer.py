"""Tokenizer specs into reversible maps between text and ids."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, assert_never

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from stoker.spec.data.tokenizer import Bpe, ByteTokenizer, CharTokenizer, FileTokenizer, Tokenizer
from worker.trainer.data.codec import BytePairs, Bytes, Characters, Codec, Published, pieces
from worker.trainer.data.step import RAGGED, Fitted, Shape, State
from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.world import World


@dataclass(frozen=True)
class Tokenization(Fitted):
    """Texts into token ids."""

    kind: ClassVar[str] = "tokenizer"
    codec: Codec
    limit: int | None = None
    """Tokens of each text at most; null for a stream of text, which gets no special tokens."""

    @property
    def padding(self) -> int:
        """Id that fills up short texts: the padding token, or the id after all tokens."""
        return self.codec.rows if self.codec.pad is None else self.codec.pad

    @property
    def vocabulary(self) -> int:
        """Tokens, with the one that fills up short texts."""
        return max(self.codec.rows, self.padding + 1)

    def apply(self, values: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        if self.limit is None:
            return [self.codec.encode(text) for text in values]
        return self.codec.encode_each(values, self.limit)

    def after(self, shape: Shape) -> Shape:
        return (RAGGED,)

    def state(self) -> State:
        return State({"limit": self.limit}, document=self.codec.dump())

    @classmethod
    def from_state(cls, state: State) -> Self:
        limit = state.values.get("limit")
        if state.document is None or not isinstance(limit, int | None):
            raise ValueError("step tokenizer: tokenizer.json is missing, or `limit` in data.json is not a number")
        return cls(load_codec(state.document), limit)


@dataclass(frozen=True)
class Tokenize:
    """The step that `data.tokenizer` asks for. The first rank learns or reads the tokens and shares them with the others."""

    makes: ClassVar[type[Fitted]] = Tokenization
    spec: Tokenizer
    whole: Sequence[str]
    """All texts: characters are those of the whole data set."""
    limit: int | None
    home: Path
    world: World
    inherited: Codec | None = None
    """Tokens of another model that this one builds on: byte pairs are not learned again where there are as many."""

    def fit(self, train: Sequence[str], before: Sequence[Fitted]) -> Tokenization:
        if isinstance(self.spec, Bpe) and self.inherited is not None and self.inherited.rows == self.spec.vocab_size:
            return Tokenization(self.inherited, self.limit)
        learned = learn_codec(self.spec, "".join(self.whole), "\n".join(train), self.home).dump() if self.world.is_lead else None
        return Tokenization(load_codec(self.world.share(learned)), self.limit)


def learn_codec(spec: Tokenizer, everything: str, train: str, home: Path = Path()) -> Codec:
    """Characters are those of the whole data set, byte pairs those of its training split; a file lies in the workspace `home`.

    Raises SpecProblem for a file that cannot be used.
    """
    match spec:
        case ByteTokenizer():
            return Bytes()
        case CharTokenizer():
            return Characters("".join(sorted(set(everything))))
        case Bpe():
            return _learn_pairs(spec, train)
        case FileTokenizer():
            return _published(spec, home / "data" / spec.source)
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
        case "file":
            inner = tokenizers.Tokenizer.from_str(json.dumps(data["tokenizer"]))
            plain = {key: data[key] for key in ("special", "mask", "pad", "purposes")}
            return Published(inner, data["rows"], **plain)
        case kind:
            raise ValueError(f"unknown tokenizer {kind!r}")


def _published(spec: FileTokenizer, folder: Path) -> Codec:
    if not (folder / "tokenizer.json").is_file():
        raise SpecProblem(f"data.tokenizer.source: {spec.source} has no tokenizer.json")
    try:
        inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises no class of its own
        raise SpecProblem(f"data.tokenizer.source: the tokenizer.json of {spec.source} cannot be read: {error}") from error
    tokens = max(inner.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    rows = tokens if spec.vocab_size is None else spec.vocab_size
    if not 0 < tokens <= rows:
        raise SpecProblem(f"data.tokenizer.vocab_size: {rows}, and the tokenizer.json of {spec.source} has {tokens} tokens")
    for name, token in (("mask_id", spec.mask_id), ("pad_id", spec.pad_id)):
        if token is not None and token >= rows:
            raise SpecProblem(f"data.tokenizer.{name}: {token} is beyond the {rows} tokens of the vocabulary")
    purposes = _purposes(folder / "tokenizer_config.json")
    return Published(inner, rows, special=spec.special_tokens, mask=spec.mask_id, pad=spec.pad_id, purposes=purposes)


def _purposes(path: Path) -> dict[str, str]:
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
