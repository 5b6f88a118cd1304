"""Frames on disk from the moment they are numbered until the server has them.

One directory of segments, each named by its first frame's number. A frame is appended whole; a torn or damaged tail, after
a crash, is cut off at the first byte that does not check (`stoker.frames`).
"""

import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from stoker.frames import BadFrame, Frame, decode_one

SEGMENT_BYTES = 8 << 20


@dataclass(frozen=True)
class _Entry:
    seq: int
    segment: Path
    offset: int
    length: int


class Spool:
    """One thread appends, another reads and forgets."""

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Opens a spool and recovers what whole frames it holds. Raises OSError."""
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._lock = Lock()
        self._entries: deque[_Entry] = deque()
        self._fd = -1
        self._segment = directory
        self._size = 0
        self._dirty = False
        self._pending = 0
        self.last_seq = 0
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._recover()

    @property
    def pending_bytes(self) -> int:
        """Bytes not yet acknowledged."""
        return self._pending

    def append(self, kind: str, header: Mapping[str, Any], payload: bytes = b"") -> int:
        """Numbers a record and writes it; it survives the process now, and the machine after `sync`.

        Raises OSError when it could not be written; the number is then not used.
        """
        seq = self.last_seq + 1
        data = Frame(seq, kind, header, payload).encode()
        if self._fd < 0 or self._size >= self._segment_bytes:
            self._open(seq)
        offset = self._size
        try:
            _write_all(self._fd, data)
        except OSError:
            os.ftruncate(self._fd, offset)
            raise
        with self._lock:
            self._size += len(data)
            self._pending += len(data)
            self._entries.append(_Entry(seq, self._segment, offset, len(data)))
            self._dirty = True
            self.last_seq = seq
        return seq

    def sync(self) -> None:
        """What was appended survives a power cut from now on."""
        if self._dirty:
            self._dirty = False
            os.fdatasync(self._fd)

    def batch(self, after: int, limit: int) -> tuple[bytes, int]:
        """Frames after a number, one after another: about `limit` bytes, one frame at least; and the last one's number."""
        with self._lock:
            wanted = [entry for entry in self._entries if entry.seq > after]
        parts: list[bytes] = []
        last, size = after, 0
        for entry in wanted:
            if parts and size + entry.length > limit:
                break
            with entry.segment.open("rb") as source:
                source.seek(entry.offset)
                parts.append(source.read(entry.length))
            last, size = entry.seq, size + entry.length
        return b"".join(parts), last

    def forget(self, through: int) -> None:
        """Drops acknowledged frames; a segment goes when its last frame does."""
        dropped: set[Path] = set()
        with self._lock:
            while self._entries and self._entries[0].seq <= through:
                entry = self._entries.popleft()
                dropped.add(entry.segment)
                self._pending -= entry.length
            kept = {entry.segment for entry in self._entries} | {self._segment}
        for segment in dropped - kept:
            segment.unlink(missing_ok=True)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, first: int) -> None:
        self.sync()
        self.close()
        self._segment = self._directory / f"{first:012d}.frames"
        self._fd = os.open(self._segment, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = 0

    def _recover(self) -> None:
        expected: int | None = None
        segments = sorted(self._directory.glob("*.frames"))
        for index, segment in enumerate(segments):
            whole, expected = self._scan(segment, expected)
            if not whole:
                for later in segments[index + 1 :]:
                    later.unlink()
                break
        if self._entries:
            self.last_seq = self._entries[-1].seq
            self._pending = sum(entry.length for entry in self._entries)
        for segment in segments:
            if segment.exists() and segment.stat().st_size == 0:
                segment.unlink()

    def _scan(self, segment: Path, expected: int | None) -> tuple[bool, int | None]:
        """Takes a segment's whole frames, cuts off the rest; answers whether there was none, and the next number."""
        view, at = memoryview(segment.read_bytes()), 0
        while at < len(view):
            try:
                frame, end = decode_one(view, at)
            except BadFrame:
                break
            if expected is not None and frame.seq != expected:
                break
            self._entries.append(_Entry(frame.seq, segment, at, end - at))
            at, expected = end, frame.seq + 1
        if at < len(view):
            os.truncate(segment, at)
        return at == len(view), expected


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
