"""A checkpoint as one tar stream: the same bytes every time, made while they are sent."""

import tarfile
from collections.abc import Generator, Sequence
from typing import Any

from server.blobs.store import BlobStore

_BLOCK, _END = 512, bytes(1024)


def length(folder: str, files: Sequence[dict[str, Any]]) -> int:
    """Bytes of the whole stream."""
    return sum(len(_header(folder, f)) + int(f["bytes"]) + -int(f["bytes"]) % _BLOCK for f in files) + len(_END)


def stream(store: BlobStore, folder: str, files: Sequence[dict[str, Any]]) -> Generator[bytes]:
    """`folder/path` of each file by name; mode 0644, time 0, no owner."""
    for file in files:
        yield _header(folder, file)
        yield from store.read(file["sha256"], 0, file["bytes"])
        if padding := -file["bytes"] % _BLOCK:
            yield bytes(padding)
    yield _END


def _header(folder: str, file: dict[str, Any]) -> bytes:
    entry = tarfile.TarInfo(f"{folder}/{file['path']}")
    entry.size, entry.mode, entry.mtime = file["bytes"], 0o644, 0
    return entry.tobuf(tarfile.GNU_FORMAT)
