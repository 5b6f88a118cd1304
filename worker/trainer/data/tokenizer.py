"""Tokenizer specs into reversible maps between text and ids."""

import json
from collections.abc import Iterable, Sequence
from typing import Protocol, assert_never

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from stoker.spec.data.tokenizer import Bpe, ByteTokenizer, CharTokenizer, Tokenizer

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


def learn_codec(spec: Tokenizer, everything: str, train: str) -> Codec:
    """Characters are those of the whole data set, byte pairs those of its training split."""
    match spec:
        case ByteTokenizer():
            return Bytes()
        case CharTokenizer():
            return Characters("".join(sorted(set(everything))))
        case Bpe():
            return _learn_pairs(spec, train)
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


def _pieces(text: str) -> Iterable[str]:
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + CHUNK) + 1 if len(text) - start > CHUNK else len(text)
        end = end if end > start else start + CHUNK
        yield text[start:end]
        start = end
