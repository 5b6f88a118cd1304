"""Tokenizer specs into reversible maps between text and ids."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, assert_never

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from stoker.spec.data.tokenizer import Bpe, ByteTokenizer, CharTokenizer, FileTokenizer, Tokenizer
from worker.trainer.errors import SpecProblem

CHUNK = 100_000
"""Characters that are encoded at once; pieces end after a line, so that hardly a token is cut."""


class Codec(Protocol):
    """Text to ids and back."""

    rows: int
    """Ids it may give: rows of the embedding."""

    def encode(self, text: str) -> npt.NDArray[np.int32]: ...

    def encode_each(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        """Of many short texts."""

    def decode(self, ids: Iterable[int]) -> str: ...

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """UTF-8 bytes that each id stands for: (rows,)."""

    def dump(self) -> str:
        """All of it as JSON, for `load_codec`."""


class Bytes:
    rows = 256

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def encode_each(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(ids).decode(errors="replace")

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        return np.ones(256, np.int64)

    def dump(self) -> str:
        return json.dumps({"type": "byte"})


class Characters:
    """Characters in code point order; the last id stands for those never seen."""

    def __init__(self, alphabet: str) -> None:
        self._alphabet = alphabet
        self._points = np.array([ord(c) for c in alphabet], np.uint32)
        self.rows = len(alphabet) + 1

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        at = np.searchsorted(self._points, points).clip(0, max(0, len(self._points) - 1))
        known = self._points[at] == points if len(self._points) else np.zeros(len(points), bool)
        return np.where(known, at, len(self._points)).astype(np.int32)

    def encode_each(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self._alphabet[i] if i < len(self._alphabet) else "\ufffd" for i in ids)

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        return np.array([len(c.encode()) for c in self._alphabet] + [0], np.int64)

    def dump(self) -> str:
        return json.dumps({"type": "char", "alphabet": self._alphabet})


class BytePairs:
    """Byte-level byte-pair encoding; ids beyond what was learned exist and are never used."""

    def __init__(self, inner: tokenizers.Tokenizer, rows: int) -> None:
        self._inner, self.rows = inner, rows

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        parts = [np.array(self._inner.encode(piece).ids, np.int32) for piece in _pieces(text)]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def encode_each(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        return [np.array(said.ids, np.int32) for said in self._inner.encode_batch(list(texts))]

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._inner.decode(list(ids)))

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        lengths = np.zeros(self.rows, np.int64)
        for token, i in self._inner.get_vocab().items():
            lengths[i] = len(token)  # byte-level tokens are written with one character per byte
        return lengths

    def dump(self) -> str:
        return json.dumps({"type": "bpe", "rows": self.rows, "tokenizer": json.loads(self._inner.to_str())}, sort_keys=True)


class Published:
    """The tokenizer of another model, as it came; `special`: whether it puts tokens of its own around a text."""

    def __init__(self, inner: tokenizers.Tokenizer, rows: int, *, special: bool) -> None:
        inner.no_padding()
        inner.no_truncation()
        self._inner, self.rows, self._special = inner, rows, special

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        parts = [np.array(self._inner.encode(piece, add_special_tokens=False).ids, np.int32) for piece in _pieces(text)]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def encode_each(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        said = self._inner.encode_batch(list(texts), add_special_tokens=self._special)
        return [np.array(one.ids, np.int32) for one in said]

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._inner.decode(list(ids)))

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """Of what each token was written as; word pieces do not say which spaces stood between them."""
        lengths = np.zeros(self.rows, np.int64)
        special = {i for i, token in self._inner.get_added_tokens_decoder().items() if token.special}
        per_byte = isinstance(self._inner.decoder, decoders.ByteLevel)
        for token, i in self._inner.get_vocab().items():
            written = re.sub(r"^<0x[0-9A-F]{2}>$", "-", token).removeprefix("##").replace("\u2581", " ")
            lengths[i] = 0 if i in special else len(token) if per_byte else len(written.encode())
        return lengths

    def dump(self) -> str:
        inner = json.loads(self._inner.to_str())
        return json.dumps({"type": "file", "rows": self.rows, "special": self._special, "tokenizer": inner}, sort_keys=True)


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
            return _published(spec, home / "data" / spec.source / "tokenizer.json")
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
            return Published(inner, data["rows"], special=data["special"])
        case kind:
            raise ValueError(f"unknown tokenizer {kind!r}")


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
    inner.train_from_iterator(_pieces(train), trainer)
    return BytePairs(inner, spec.vocab_size)


def _published(spec: FileTokenizer, path: Path) -> Codec:
    if not path.is_file():
        raise SpecProblem(f"data.tokenizer.source: {spec.source} has no tokenizer.json")
    try:
        inner = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no class of its own
        raise SpecProblem(f"data.tokenizer.source: the tokenizer.json of {spec.source} cannot be read: {error}") from error
    tokens = max(inner.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    rows = tokens if spec.vocab_size is None else spec.vocab_size
    if not 0 < tokens <= rows:
        raise SpecProblem(f"data.tokenizer.vocab_size: {rows}, and the tokenizer.json of {spec.source} has {tokens} tokens")
    return Published(inner, rows, special=spec.special_tokens)


def _pieces(text: str) -> Iterable[str]:
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + CHUNK) + 1 if len(text) - start > CHUNK else len(text)
        end = end if end > start else start + CHUNK
        yield text[start:end]
        start = end
