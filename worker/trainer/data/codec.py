"""Reversible maps between text and ids."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import tokenizers

CHUNK = 100_000
"""Characters that are encoded at once; pieces end after a line, so that hardly a token is cut."""


class Codec(Protocol):
    """Text to ids and back."""

    rows: int
    """Ids it may give: rows of the embedding."""
    mask: int | None
    """Id of the token that hides others, where it has one."""
    pad: int | None
    """Id of the token that fills up short texts, where it has one."""

    def encode(self, text: str) -> npt.NDArray[np.int32]: ...

    def encode_each(self, texts: Sequence[str], most: int) -> list[npt.NDArray[np.int32]]:
        """Of many short texts, the first `most` tokens of each."""

    def decode(self, ids: Iterable[int]) -> str: ...

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """UTF-8 bytes that each id stands for: (rows,)."""

    def dump(self) -> str:
        """All of it as JSON, for `load_codec`."""


class Bytes:
    rows = 256
    mask: int | None = None
    pad: int | None = None

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def encode_each(self, texts: Sequence[str], most: int) -> list[npt.NDArray[np.int32]]:
        return [self.encode(text)[:most] for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(ids).decode(errors="replace")

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        return np.ones(256, np.int64)

    def dump(self) -> str:
        return json.dumps({"type": "byte"})


class Characters:
    """Characters in code point order; the last id stands for those never seen."""

    mask: int | None = None
    pad: int | None = None

    def __init__(self, alphabet: str) -> None:
        self._alphabet = alphabet
        self._points = np.array([ord(c) for c in alphabet], np.uint32)
        self.rows = len(alphabet) + 1

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        at = np.searchsorted(self._points, points).clip(0, max(0, len(self._points) - 1))
        known = self._points[at] == points if len(self._points) else np.zeros(len(points), bool)
        return np.where(known, at, len(self._points)).astype(np.int32)

    def encode_each(self, texts: Sequence[str], most: int) -> list[npt.NDArray[np.int32]]:
        return [self.encode(text)[:most] for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self._alphabet[i] if i < len(self._alphabet) else "\ufffd" for i in ids)

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        return np.array([len(c.encode()) for c in self._alphabet] + [0], np.int64)

    def dump(self) -> str:
        return json.dumps({"type": "char", "alphabet": self._alphabet})


class BytePairs:
    """Byte-level byte-pair encoding; ids beyond what was learned exist and are never used."""

    mask: int | None = None
    pad: int | None = None

    def __init__(self, inner: tokenizers.Tokenizer, rows: int) -> None:
        self._inner, self.rows = inner, rows

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        parts = [np.array(self._inner.encode(piece).ids, np.int32) for piece in pieces(text)]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def encode_each(self, texts: Sequence[str], most: int) -> list[npt.NDArray[np.int32]]:
        return [np.array(said.ids[:most], np.int32) for said in self._inner.encode_batch(list(texts))]

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._inner.decode(list(ids)))

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        lengths = np.zeros(self.rows, np.int64)
        for token, i in self._inner.get_vocab().items():
            lengths[i] = len(token)  # byte-level tokens are written with one character per byte
        return lengths

    def dump(self) -> str:
        return json.dumps({"type": "bpe", "rows": self.rows, "tokenizer": json.loads(self._inner.to_str())}, sort_keys=True)


class Foreign:
    """That of a Hugging Face directory. A stream of text gets no special tokens; texts of a table get those of its template."""

    def __init__(
        self, inner: tokenizers.Tokenizer, rows: int, mask: int | None, pad: int | None, special: Mapping[str, str]
    ) -> None:
        """`special`: what its special tokens are for, `eos_token`, and how they are written."""
        self._inner, self.rows, self.mask, self.pad, self.special = inner, rows, mask, pad, special
        inner.no_padding()

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        self._inner.no_truncation()
        parts = [np.array(self._inner.encode(piece, add_special_tokens=False).ids, np.int32) for piece in pieces(text)]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def encode_each(self, texts: Sequence[str], most: int) -> list[npt.NDArray[np.int32]]:
        """What ends a text, [SEP], stays where it is cut."""
        if most > self._inner.num_special_tokens_to_add(False):
            self._inner.enable_truncation(most)
        return [np.array(said.ids[:most], np.int32) for said in self._inner.encode_batch(list(texts))]

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._inner.decode(list(ids)))

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """Of a tokenizer that is not byte-level, those of the words as it writes them; special tokens have none."""
        lengths = np.zeros(self.rows, np.int64)
        level = "ByteLevel" in json.dumps([json.loads(self._inner.to_str()).get(part) for part in ("pre_tokenizer", "decoder")])
        for token, i in self._inner.get_vocab(with_added_tokens=False).items():
            lengths[i] = len(token) if level else _bytes_of(token)
        return lengths

    def id_of(self, purpose: str) -> int | None:
        """Of the special token for `eos_token`, where there is one."""
        written = self.special.get(purpose)
        found: int | None = None if written is None else self._inner.token_to_id(written)
        return found

    def dump(self) -> str:
        self._inner.no_truncation()
        plain = {"type": "hf", "rows": self.rows, "mask": self.mask, "pad": self.pad, "special": dict(self.special)}
        return json.dumps(plain | {"tokenizer": json.loads(self._inner.to_str())}, sort_keys=True)


def _bytes_of(token: str) -> int:
    """UTF-8 bytes of a piece as SentencePiece and WordPiece write it: one for a byte, none for the mark of a word that goes on."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return 1
    return len(token.removeprefix("##").replace("\u2581", " ").encode())


def pieces(text: str) -> Iterable[str]:
    """A long text cut where a line ends."""
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + CHUNK) + 1 if len(text) - start > CHUNK else len(text)
        end = end if end > start else start + CHUNK
        yield text[start:end]
        start = end
