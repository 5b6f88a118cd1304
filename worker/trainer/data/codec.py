"""Reversible maps between text and ids."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import decoders

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

    def encode_each(self, texts: Sequence[str], most: int | None = None) -> list[npt.NDArray[np.int32]]:
        """Of many short texts, the first `most` tokens of each, or all."""

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

    def encode_each(self, texts: Sequence[str], most: int | None = None) -> list[npt.NDArray[np.int32]]:
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

    def encode_each(self, texts: Sequence[str], most: int | None = None) -> list[npt.NDArray[np.int32]]:
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

    def encode_each(self, texts: Sequence[str], most: int | None = None) -> list[npt.NDArray[np.int32]]:
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


class Published:
    """The tokenizer of another model, as it came. A stream of text gets no special tokens of its template; texts of a table get them
    where `special` says so.
    """

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        rows: int,
        *,
        special: bool,
        mask: int | None = None,
        pad: int | None = None,
        purposes: Mapping[str, str] | None = None,
    ) -> None:
        """`purposes`: what special tokens are for, `eos_token`, and how they are written."""
        inner.no_padding()
        self._inner, self.rows, self._special, self.mask, self.pad = inner, rows, special, mask, pad
        self.purposes = purposes or {}

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        self._inner.no_truncation()
        parts = [np.array(self._inner.encode(piece, add_special_tokens=False).ids, np.int32) for piece in pieces(text)]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def encode_each(self, texts: Sequence[str], most: int | None = None) -> list[npt.NDArray[np.int32]]:
        """What ends a text, [SEP], stays where it is cut."""
        self._inner.no_truncation()
        if most is not None and most > self._inner.num_special_tokens_to_add(False):
            self._inner.enable_truncation(most)
        said = self._inner.encode_batch(list(texts), add_special_tokens=self._special)
        return [np.array(one.ids[:most], np.int32) for one in said]

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

    def id_of(self, purpose: str) -> int | None:
        """Of the special token for `eos_token`, where there is one."""
        written = self.purposes.get(purpose)
        found: int | None = None if written is None else self._inner.token_to_id(written)
        return found

    def dump(self) -> str:
        self._inner.no_truncation()
        plain = {"type": "file", "rows": self.rows, "special": self._special, "mask": self.mask, "pad": self.pad}
        rest = {"purposes": dict(self.purposes), "tokenizer": json.loads(self._inner.to_str())}
        return json.dumps(plain | rest, sort_keys=True)


def pieces(text: str) -> Iterable[str]:
    """A long text cut where a line ends."""
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + CHUNK) + 1 if len(text) - start > CHUNK else len(text)
        end = end if end > start else start + CHUNK
        yield text[start:end]
        start = end
