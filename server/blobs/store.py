"""The blob store of one server process: unfinished uploads on the local disk, whole blobs in a backend."""

import itertools
import shutil
from collections.abc import Generator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from server.blobs.backend import Backend
from server.blobs.bucket import BucketBackend
from server.blobs.failures import StorageFull
from server.blobs.local import LocalBackend
from server.blobs.partial import Partials, Upload
from server.blobs.settings import BlobSettings


class BlobStore:
    """Blocking: call it from a thread. Bytes only; who may see them is the service's business."""

    def __init__(self, backend: Backend, partials: Partials, settings: BlobSettings) -> None:
        self.backend, self.partials, self.settings = backend, partials, settings
        self._shards = itertools.cycle(f"{n:02x}" for n in range(256))

    def next_shard(self) -> str:
        """Each two hex digits in turn: housekeeping looks at a 256th of the store at a time."""
        return next(self._shards)

    def begin(self, project: str, sha256: str, offset: int, expected: int, limit: int) -> Upload:
        """Start or continue an upload of so many further bytes, `limit` in all. Raises WrongOffset, StorageFull."""
        free = shutil.disk_usage(self.partials.root).free
        if free - expected < self.settings.reserve_bytes:
            raise StorageFull("less room than the reserve")
        return self.partials.begin(project, sha256, offset, limit)

    def finish(self, upload: Upload) -> int:
        """Verify and keep it; returns its size. Raises DigestMismatch, StorageFull."""
        size = upload.finish()
        self.backend.adopt(upload.path, upload.sha256)
        return size

    def read(self, sha256: str, start: int, stop: int) -> Generator[bytes]:
        """Bytes of `[start, stop)`. Raises FileNotFoundError."""
        return self.backend.read(sha256, start, stop)


def open_store(settings: BlobSettings) -> BlobStore:
    """The store that the settings name. Raises ValueError for a URL of another kind."""
    staging = settings.state_dir / "uploads"
    match urlsplit(settings.url or "file:"):
        case parts if parts.scheme == "file":
            root = Path(unquote(parts.path)) if parts.path.strip("/") else settings.state_dir / "blobs"
            return BlobStore(LocalBackend(root), Partials(root / "uploads"), settings)
        case _:
            return BlobStore(BucketBackend(settings.url or "", settings.bucket_config()), Partials(staging), settings)
