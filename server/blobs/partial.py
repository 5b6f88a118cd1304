"""Uploads under way: one file per digest that grows until it is whole, so that a cut upload goes on where it stopped."""

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import time
from pathlib import Path

from server.blobs.failures import DigestMismatch, StorageFull, TooLarge, WrongOffset

_CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Partials:
    """The folder of unfinished uploads, one per project and digest: going on with another project's would prove nothing.

    The file of a digest is held with flock while a request writes to it. A second uploader of the same digest at
    the same time writes to a file of its own, which is not resumable: either may finish first, both hold the same bytes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def stored(self, project: str, sha256: str) -> int:
        """Bytes of the project's unfinished upload of a digest."""
        try:
            return self._path(project, sha256).stat().st_size
        except FileNotFoundError:
            return 0

    def _path(self, project: str, sha256: str) -> Path:
        return self.root / f"{sha256}.{project}"

    def begin(self, project: str, sha256: str, offset: int, limit: int) -> "Upload":
        """Start or continue an upload of at most `limit` bytes in all.

        Raises WrongOffset when the stored part ends elsewhere, StorageFull.
        """
        path = self._path(project, sha256)
        try:
            return self._shared(path, sha256, offset, limit)
        except BlockingIOError:
            if offset:
                raise WrongOffset(0) from None
            path = path.with_name(f"{path.name}~{secrets.token_hex(8)}")
            return Upload(path, _open(path, os.O_EXCL), sha256, 0, limit, resumable=False)

    def _shared(self, path: Path, sha256: str, offset: int, limit: int) -> "Upload":
        while True:
            fd = _open(path, 0)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _same_file(fd, path):  # finished or dropped by its writer between open and lock
                    os.close(fd)
                    continue
                stored = os.fstat(fd).st_size
                if offset > stored:
                    raise WrongOffset(stored)
                os.ftruncate(fd, offset)  # a client that starts earlier than it must, starts over from there
                return Upload(path, fd, sha256, offset, limit)
            except BaseException:
                _close_quietly(fd)
                raise

    def sweep(self, older_than: float) -> int:
        """Remove uploads that nobody continued for so many seconds; returns how many."""
        removed, before = 0, time.time() - older_than
        for path in self.root.iterdir():
            try:
                fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_mtime < before and _same_file(fd, path):
                    path.unlink()
                    removed += 1
            except BlockingIOError:
                pass
            finally:
                os.close(fd)
        return removed


class Upload:
    """One request's writing to one digest. Blocking: call it from a thread. Close it whatever happens."""

    def __init__(self, path: Path, fd: int, sha256: str, offset: int, limit: int, *, resumable: bool = True) -> None:
        self.path, self.sha256, self.bytes, self.resumable = path, sha256, offset, resumable
        self._fd, self._limit = fd, limit
        self._hash = hashlib.sha256()
        self._hashed = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append. Raises StorageFull or TooLarge, after which nothing of the upload is left."""
        if self.bytes + len(data) > self._limit:
            self.drop()
            raise TooLarge(f"more than {self._limit} bytes")
        self._catch_up()
        view, at = memoryview(data), self.bytes
        try:
            while view:
                done = os.pwrite(self._fd, view, at)
                at, view = at + done, view[done:]
        except OSError as error:
            raise self._full(error) from error
        self._hash.update(data)
        self._hashed = self.bytes = at

    def finish(self) -> int:
        """Flush the whole to the disk and return its size. Raises DigestMismatch, after which nothing is left, or StorageFull."""
        self._catch_up()
        if self._hash.hexdigest() != self.sha256:
            self.drop()
            raise DigestMismatch(self.sha256)
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._full(error) from error
        return self.bytes

    def drop(self) -> None:
        """Forget the upload and what earlier requests stored of it."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file; what is stored of an unfinished shared upload stays for the next request."""
        if self._fd >= 0:
            if not self.resumable:
                self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    def _catch_up(self) -> None:
        """Hash what earlier requests stored: a hash's state cannot be kept on the disk."""
        while self._hashed < self.bytes:
            data = os.pread(self._fd, min(_CHUNK, self.bytes - self._hashed), self._hashed)
            if not data:
                raise WrongOffset(self._hashed)
            self._hash.update(data)
            self._hashed += len(data)

    def _full(self, error: OSError) -> Exception:
        if error.errno not in _FULL:
            return error
        self.drop()
        return StorageFull(str(error))


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(str(error)) from error
        raise


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _close_quietly(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)
