"""Where whole blobs live: a local folder, or an S3-compatible bucket. Both take a finished upload and give bytes back."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Protocol


class Backend(Protocol):
    """Blocking: call it from a thread."""

    def adopt(self, path: Path, sha256: str) -> None:
        """Take over a finished, flushed file; when it returns, the blob is durable and the file is gone."""
        ...

    def size(self, sha256: str) -> int | None:
        """Bytes, or null when it is not there."""
        ...

    def read(self, sha256: str, start: int, stop: int) -> Generator[bytes]:
        """Bytes of `[start, stop)` in large pieces. Raises FileNotFoundError, at once or while reading."""
        ...

    def remove(self, sha256: str) -> None:
        """Forget it; fine when it is not there."""
        ...

    def listing(self, shard: str) -> Iterator[tuple[str, float]]:
        """Digest and Unix time of storing of every blob whose digest starts with two hex digits."""
        ...

    def local(self, sha256: str) -> Path | None:
        """The file itself, when there is one on this machine."""
        ...
