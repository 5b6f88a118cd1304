"""Blobs in an S3-compatible bucket: `s3://bucket/prefix`, keys `prefix/ab/abcd…`, through obstore."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import NotFoundError
from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import S3Config  # only in its stubs

_PIECE = 8 << 20
"""Bytes per part of an upload and per read."""


class BucketBackend:
    """Satisfies Backend. Uploads are staged on the local disk, resumed and verified there, then sent whole.

    Args:
        url: `s3://bucket/prefix`.
        config: endpoint, region, access_key_id … as obstore names them; what is missing comes from AWS_* variables.
    """

    def __init__(self, url: str, config: "S3Config") -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc:
            raise ValueError(f"STOKER_BLOB_URL must be file:///folder or s3://bucket/prefix, not {parts.scheme}://…")
        self._prefix = parts.path.strip("/")
        self._store = S3Store(parts.netloc, config=config, client_options={"timeout": "60s", "allow_http": True})

    def _key(self, sha256: str) -> str:
        return "/".join(part for part in (self._prefix, sha256[:2], sha256) if part)

    def adopt(self, path: Path, sha256: str) -> None:
        obstore.put(self._store, self._key(sha256), path, chunk_size=_PIECE)
        path.unlink(missing_ok=True)

    def size(self, sha256: str) -> int | None:
        try:
            return int(obstore.head(self._store, self._key(sha256))["size"])
        except (NotFoundError, FileNotFoundError):
            return None

    def read(self, sha256: str, start: int, stop: int) -> Generator[bytes]:
        while start < stop:
            upto = min(stop, start + _PIECE)
            try:
                data = bytes(obstore.get_range(self._store, self._key(sha256), start=start, end=upto))
            except NotFoundError as error:
                raise FileNotFoundError(sha256) from error
            start = upto
            yield data

    def remove(self, sha256: str) -> None:
        try:
            obstore.delete(self._store, self._key(sha256))
        except (NotFoundError, FileNotFoundError):
            return

    def listing(self, shard: str) -> Iterator[tuple[str, float]]:
        for page in obstore.list(self._store, prefix="/".join(part for part in (self._prefix, shard) if part)):
            for entry in page:
                yield entry["path"].rsplit("/", 1)[-1], entry["last_modified"].timestamp()

    def local(self, sha256: str) -> Path | None:
        return None
