"""What is to be written into a directory, and the writing of it. It computes nothing with PyTorch: a forked process may do it."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worker.trainer.staging.sheet import Sheet

PORTION = 16 << 20
"""Bytes hashed and written at once."""


@dataclass(frozen=True)
class Written:
    """A file that is on disk."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """A file to be."""

    path: str
    content: Sheet | bytes


@dataclass(frozen=True)
class Job:
    """Files for one directory, which is made where it is not there."""

    into: Path
    entries: Sequence[Entry]
    present: Sequence[str] = field(default=())
    """Small files that are there already, to be flushed and hashed."""

    @property
    def bytes(self) -> int:
        """Of all tensors."""
        return sum(entry.content.bytes for entry in self.entries if isinstance(entry.content, Sheet))

    def run(self) -> list[Written]:
        """Write and flush everything. Raises OSError."""
        self.into.mkdir(parents=True, exist_ok=True)
        done = [_write(self.into, entry) for entry in self.entries]
        for name in self.present:
            flush(self.into / name)
            done.append(Written(name, (self.into / name).stat().st_size, digest(self.into / name)))
        return done


def _write(into: Path, entry: Entry) -> Written:
    sha, size = hashlib.sha256(), 0
    file = os.open(into / entry.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        for piece in _pieces(entry.content):
            for at in range(0, len(piece), PORTION):
                portion = piece[at : at + PORTION]
                sha.update(portion)
                _all(file, portion)
            size += len(piece)
        os.fsync(file)
    finally:
        os.close(file)
    return Written(entry.path, size, sha.hexdigest())


def _pieces(content: Sheet | bytes) -> Iterable[memoryview]:
    if isinstance(content, bytes):
        yield memoryview(content)
        return
    yield memoryview(content.header)
    for body in content.bodies:
        yield body()


def _all(file: int, portion: memoryview) -> None:
    while portion:
        portion = portion[os.write(file, portion) :]


def flush(path: Path) -> None:
    """A file's or a directory's content to the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(path: Path) -> str:
    """SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
