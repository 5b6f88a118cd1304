"""Blobs of this node, named by their SHA-256, shared by its attempts, and verified each time they are used."""

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from stoker.protocol import BlobFile
from worker.agent.api import CHUNK, Refused, ServerApi, Unreachable


class Damaged(Exception):
    """The server's bytes do not hash to their name, or are gone."""


class BlobCache:
    def __init__(self, root: Path, limit: int) -> None:
        """limit: bytes; the least recently used blobs go first."""
        self._root = root
        self._limit = limit

    def path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256

    def fetch(self, api: ServerApi, file: BlobFile, target: Path, beat: Callable[[], None], wait: Callable[[], None]) -> None:
        """Puts a verified blob at a path of a workspace.

        beat is called after each piece; wait, before a try after the server did not answer. Both may raise to give up.
        Raises Damaged when the server has no such blob, or twice sends other bytes.
        """
        blob = self.path(file.sha256)
        for last in (False, True):
            try:
                if not _is(blob, file):
                    self._download(api, file, blob, beat, wait)
                os.utime(blob)
                link(blob, target)
                return
            except FileNotFoundError:  # Trimmed by another agent of this node in between.
                if last:
                    raise

    def adopt(self, source: Path, sha256: str) -> None:
        """Keeps a file that the server now has, so that the next attempt on this node need not fetch it."""
        blob = self.path(sha256)
        if not blob.exists():
            blob.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                link(source, blob)

    def trim(self) -> None:
        """Deletes least recently used blobs until the rest fits. Workspaces keep their own links."""
        found = [(path.stat().st_mtime, path.stat().st_size, path) for path in self._root.glob("??/*")]
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._limit:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _download(self, api: ServerApi, file: BlobFile, blob: Path, beat: Callable[[], None], wait: Callable[[], None]) -> None:
        blob.unlink(missing_ok=True)
        blob.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = blob.with_name(f"{blob.name}.{os.getpid()}")
        try:
            for _ in range(2):
                _fill(api, file, part, beat, wait)
                if _is(part, file):
                    part.rename(blob)
                    return
        finally:
            part.unlink(missing_ok=True)
        raise Damaged(f"{file.path}: the server's bytes do not hash to {file.sha256}")


def _fill(api: ServerApi, file: BlobFile, part: Path, beat: Callable[[], None], wait: Callable[[], None]) -> None:
    """Downloads into a file, continuing where a cut connection left off."""
    with part.open("wb") as target:
        while True:
            try:
                for _ in api.download(file.sha256, target, target.tell()):
                    beat()
                return
            except Unreachable:
                target.flush()
                wait()
            except Refused as error:
                if target.tell() == file.bytes:  # Nothing is left to ask for: 416.
                    return
                raise Damaged(str(error)) from error


def _is(path: Path, file: BlobFile) -> bool:
    """Whether a file is there and holds what its name says."""
    try:
        return path.stat().st_size == file.bytes and digest(path) == file.sha256
    except FileNotFoundError:
        return False


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as source:
        while piece := source.read(CHUNK):
            sha.update(piece)
    return sha.hexdigest()


def link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system cannot link."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def confined(root: Path, path: str) -> Path:
    """A relative path below a directory. Raises ValueError for one that leads out of it."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path or "\\" in path:
        raise ValueError(f"not a path inside the workspace: {path!r}")
    return root.joinpath(*parts)
