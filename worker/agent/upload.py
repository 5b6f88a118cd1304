"""Stores checkpoints and artifacts as blobs, in order, in a thread of its own."""

import json
import logging
import queue
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoker.events import Artifact, Saved
from stoker.protocol import BlobFile
from worker.agent.api import Behind, Refused, ServerApi, Stale, Unreachable
from worker.agent.backoff import Backoff
from worker.agent.cache import BlobCache, confined, digest, link
from worker.agent.sealer import json_number

MANIFEST = "manifest.json"
SHARDS = "shards"
"""Kind of a parcel that no frame follows."""
CLOSING = 5.0
"""Seconds to wait for the thread at the end."""
ELSEWHERE = 300.0
"""Seconds to wait for what another node is to store of a checkpoint."""
REJECTIONS = 5
"""Times a blob may be refused before its upload counts as failed."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parcel:
    """Files that belong together and the frame that follows when all are stored."""

    kind: str
    header: dict[str, Any]
    root: Path
    """Holds hard links of the files, so that the trainer may delete its own."""
    files: tuple[BlobFile, ...]
    elsewhere: tuple[BlobFile, ...] = ()
    """Files on other nodes, which store them; the frame waits for them too."""
    final: bool = False
    step: int | None = None


@dataclass(frozen=True)
class Delivery:
    parcel: Parcel
    error: str | None = None


def pack_checkpoint(home: Path, event: Saved, number: int, *, nodes: int = 1) -> Parcel:
    """A parcel of a saved checkpoint; sizes and digests are those of its manifest. Raises OSError, ValueError.

    With several nodes, each of which has a disk of its own, files that are not here are left to the node that has them.
    """
    source = confined(home, event.path)
    vouched, files = _vouched(source), tuple(_listed(source))
    here = {file.path for file in files}
    elsewhere = tuple(file for name, file in vouched.items() if name not in here) if nodes > 1 else ()
    metrics = {key: json_number(value) for key, value in event.metrics.items()}
    listed = [file.model_dump() for file in (*files, *elsewhere)]
    header = {"step": event.step, "metrics": metrics, "final": event.final, "files": listed}
    root = _linked(source, files, home, number)
    return Parcel("checkpoint", header, root, files, elsewhere, event.final, event.step)


def pack_shards(home: Path, event: Saved, number: int) -> Parcel:
    """What a node other than node 0 has of a checkpoint: blobs for node 0's frame, and none of its own. Raises as above."""
    source = confined(home, event.path)
    files = tuple(file for file in _listed(source) if file.path != MANIFEST)
    return Parcel(SHARDS, {}, _linked(source, files, home, number), files, step=event.step)


def _linked(source: Path, files: Iterable[BlobFile], home: Path, number: int) -> Path:
    root = home / "outbox" / f"{number:06d}"
    for file in files:
        target = confined(root, file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        link(confined(source, file.path), target)
    return root


def pack_artifact(home: Path, event: Artifact, number: int) -> Parcel:
    """A parcel of one file. Raises OSError, ValueError."""
    source = confined(home, event.path)
    root = home / "outbox" / f"{number:06d}"
    root.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, root / "artifact")  # A trainer may go on writing to its file.
    file = BlobFile(path="artifact", bytes=(root / "artifact").stat().st_size, sha256=digest(root / "artifact"))
    header = {"name": event.name, "bytes": file.bytes, "sha256": file.sha256}
    return Parcel("artifact", header, root, (file,))


def _listed(source: Path) -> Iterator[BlobFile]:
    """Every file of a checkpoint, the manifest last. What the manifest does not vouch for is hashed here."""
    vouched = _vouched(source)
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if path.is_file() and name != MANIFEST:
            yield vouched.get(name) or BlobFile(path=name, bytes=path.stat().st_size, sha256=digest(path))
    path = source / MANIFEST
    yield BlobFile(path=MANIFEST, bytes=path.stat().st_size, sha256=digest(path))


def _vouched(source: Path) -> dict[str, BlobFile]:
    """What the manifest lists, by path."""
    manifest = json.loads((source / MANIFEST).read_bytes())
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), list):
        return {}
    return {f.path: f for f in (BlobFile.model_validate(entry) for entry in manifest["files"])}


class Uploader:
    def __init__(self, api: ServerApi, cache: BlobCache, backoff: Backoff) -> None:
        self._api = api
        self._cache = cache
        self._backoff = backoff
        self._todo: queue.SimpleQueue[Parcel | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._waiting = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uploader", daemon=True)
        self.stale = False

    def start(self) -> None:
        self._thread.start()

    def send(self, parcel: Parcel) -> None:
        self._waiting += 1
        self._todo.put(parcel)

    @property
    def waiting(self) -> int:
        """Parcels sent whose deliveries were not collected yet."""
        return self._waiting

    def collect(self) -> Iterator[Delivery]:
        """Deliveries since the last call, in the order of `send`."""
        while not self._done.empty():
            self._waiting -= 1
            yield self._done.get()

    def close(self) -> None:
        """Ends the thread; what was not stored yet is given up."""
        self._stop.set()
        self._todo.put(None)
        if self._thread.ident is not None:
            # A large piece may be on its way; nothing that matters depends on it any more.
            self._thread.join(CLOSING)
        self._api.close()

    def _run(self) -> None:
        while (parcel := self._todo.get()) is not None and not self._stop.is_set():
            self._done.put(self._deliver(parcel))

    def _deliver(self, parcel: Parcel) -> Delivery:
        try:
            for file in parcel.files:
                self._store(parcel.root / file.path, file)
            for file in parcel.elsewhere:
                self._wait_for(file)
        except Stale:
            self.stale = True
            return Delivery(parcel, "the attempt is another's")
        except (Refused, OSError) as error:
            log.warning("upload: %s", error)
            return Delivery(parcel, str(error))
        finally:
            shutil.rmtree(parcel.root, ignore_errors=True)
        return Delivery(parcel)

    def _store(self, path: Path, file: BlobFile) -> None:
        """Until the server has the blob. Raises Refused when it does not want it, or when this thread is to end."""
        refused = 0
        while True:
            try:
                self._push(path, file)
                self._cache.adopt(path, file.sha256)
                self._backoff.reset()
                return
            except (Unreachable, Behind) as error:
                log.info("upload: %s", error)
            except Refused:
                refused += 1
                if refused >= REJECTIONS:
                    raise
            if self._stop.wait(self._backoff.next()):
                raise Refused("given up", 0, "closed")

    def _wait_for(self, file: BlobFile) -> None:
        """Until another node has stored a file. Raises Refused when it does not, or when this thread is to end."""
        until = time.monotonic() + ELSEWHERE
        while True:
            try:
                if self._api.stored(file.sha256).complete:
                    self._backoff.reset()
                    return
            except Unreachable as error:
                log.info("upload: %s", error)
            if time.monotonic() > until or self._stop.wait(self._backoff.next()):
                raise Refused(f"{file.path} was not stored by the node that has it", 0, "elsewhere")

    def _push(self, path: Path, file: BlobFile) -> None:
        stored = self._api.stored(file.sha256)
        if stored.complete:
            return
        with path.open("rb") as source:
            try:
                self._api.put(file.sha256, source, file.bytes, min(stored.offset, file.bytes))
            except Behind as behind:
                self._api.put(file.sha256, source, file.bytes, min(behind.offset, file.bytes))
