"""Blobs as plain files: `ab/cd/abcd…`, written once, mode 0400."""

import errno
import os
from collections.abc import Generator, Iterator
from pathlib import Path

from server.blobs.failures import StorageFull

PIECE = 4 << 20
"""Bytes per read; larger ones no longer help."""


class LocalBackend:
    """Satisfies Backend. The folder of partial uploads is on the same file system, so that adopting is a rename."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _path(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256[2:4] / sha256

    def adopt(self, path: Path, sha256: str) -> None:
        target = self._path(sha256)
        try:
            for folder in (target.parent.parent, target.parent):
                if not folder.exists():
                    folder.mkdir(exist_ok=True, mode=0o700)
                    _sync(folder.parent)
            os.chmod(path, 0o400)
            os.replace(path, target)
            _sync(target.parent)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(str(error)) from error
            raise

    def size(self, sha256: str) -> int | None:
        try:
            return self._path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, sha256: str, start: int, stop: int) -> Generator[bytes]:
        fd = os.open(self._path(sha256), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.posix_fadvise(fd, start, stop - start, os.POSIX_FADV_SEQUENTIAL)
            while start < stop:
                data = os.pread(fd, min(PIECE, stop - start), start)
                if not data:
                    raise OSError(f"blob {sha256} ends at {start}")
                start += len(data)
                yield data
        finally:
            os.close(fd)

    def remove(self, sha256: str) -> None:
        self._path(sha256).unlink(missing_ok=True)

    def listing(self, shard: str) -> Iterator[tuple[str, float]]:
        for path in (self.root / shard).glob("??/" + "[0-9a-f]" * 64):
            try:
                yield path.name, path.stat().st_mtime
            except FileNotFoundError:
                continue

    def local(self, sha256: str) -> Path | None:
        return self._path(sha256)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
