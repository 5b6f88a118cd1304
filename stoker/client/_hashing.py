"""Files as manifests: path, size, SHA-256."""

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from stoker.errors import ConfigError, DownloadError
from stoker.views import FileView

CHUNK = 1 << 20
"""Bytes read at a time."""


def manifest(path: Path) -> list[tuple[FileView, Path]]:
    """The files of a data set, sorted by path: one file, or every file below a folder but hidden ones.

    Raises ConfigError when there is nothing to upload.
    """
    if path.is_file():
        found = [(path.name, path)]
    elif path.is_dir():
        found = [(file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file()]
        found = [(name, file) for name, file in found if not any(part.startswith(".") for part in name.split("/"))]
    else:
        raise ConfigError(f"no such file or folder: {path}")
    if not found:
        raise ConfigError(f"nothing to upload: {path} has no files")
    return [(FileView(path=name, bytes=file.stat().st_size, sha256=digest(file)), file) for name, file in sorted(found)]


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def chunks(path: Path, start: int) -> Iterator[bytes]:
    """The bytes from an offset on."""
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(CHUNK):
            yield chunk


def inside(folder: Path, name: str) -> Path:
    """Where a manifest's file lies in a folder.

    Raises DownloadError for a path that would leave it: a manifest is input, not trust.
    """
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or any(p in ("..", ".", "") or "\\" in p or "\0" in p for p in name.split("/")):
        raise DownloadError(f"the manifest names a file outside its folder: {name!r}")
    return folder.joinpath(*parts.parts)
