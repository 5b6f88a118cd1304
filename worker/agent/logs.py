"""Follows one output stream of a rank: raw bytes, bounded in rate, so that a flood costs neither memory nor disk nor time."""

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHUNK = 64 << 10
RATE = 1 << 20
"""Bytes a second that a stream may send for long."""
BURST = 4 << 20
TAIL = 64 << 10
"""What is kept of the end of a stretch that is skipped: the newest bytes say most."""
_PUNCH_STEP = 64 << 20
_KEEP_SIZE_PUNCH_HOLE = 0x03
"""FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE of fallocate(2)."""
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class LogChunk:
    offset: int
    """Bytes of the stream before this chunk, those that were skipped included."""
    data: bytes


class LogTail:
    def __init__(self, path: Path, now: float) -> None:
        self._path = path
        self._offset = 0
        self._credit = float(BURST)
        self._at = now
        self._punched = 0
        self.skipped = 0
        """Bytes that were dropped because the stream was too fast."""

    def read(self, now: float, *, last: bool = False) -> Iterator[LogChunk]:
        """Chunks written since the last call, as far as the rate allows; at the end (`last`) what waited is skipped over."""
        self._credit = min(BURST, self._credit + (now - self._at) * RATE)
        self._at = now
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            size = os.fstat(fd).st_size
            yield from self._take(fd, min(size, self._offset + int(self._credit)))
            if size - self._offset > BURST or (last and size > self._offset):
                yield from self._skip(fd, size)
            self._punch(fd)
        finally:
            os.close(fd)

    def _take(self, fd: int, end: int) -> Iterator[LogChunk]:
        while self._offset < end:
            data = os.pread(fd, min(CHUNK, end - self._offset), self._offset)
            if not data:
                return
            chunk = LogChunk(self._offset, data)
            self._offset += len(data)
            self._credit -= len(data)
            yield chunk

    def _skip(self, fd: int, size: int) -> Iterator[LogChunk]:
        target = max(self._offset, size - TAIL)
        self.skipped += target - self._offset
        self._offset = target
        yield from self._take(fd, size)

    def _punch(self, fd: int) -> None:
        """Gives the disk blocks of what was read back; the file keeps its length, so its writer notices nothing."""
        if self._offset - self._punched < _PUNCH_STEP:
            return
        _libc.fallocate(fd, _KEEP_SIZE_PUNCH_HOLE, ctypes.c_long(self._punched), ctypes.c_long(self._offset - self._punched))
        self._punched = self._offset
