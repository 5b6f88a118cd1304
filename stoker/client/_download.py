"""Downloading: several files at once, each continued from where it was cut, verified, and shown only when all are whole."""

import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from stoker.client import _calls
from stoker.client._hashing import digest, inside
from stoker.client._progress import Counter, Progress
from stoker.client._transport import Transport
from stoker.client._wire import Call
from stoker.errors import DownloadError, NotFound, ServerFault, StokerError, problem
from stoker.views import FileView

PARALLEL = 4
TRIES = 8
READ_TIMEOUT = 30.0

Where = Callable[[FileView], str]
"""Path on the server of a manifest's file."""


def checkpoint(transport: Transport, job_id: str, which: int | str, to: Path | None, progress: Progress | None) -> Path:
    """A checkpoint as a folder, by default `<job id>-step-<n>` here. Raises DownloadError, ApiError."""
    manifest = transport.send(_calls.checkpoint(job_id, which))
    folder = to or Path(f"{job_id}-step-{manifest.step}")
    # By step, not by `best`: a better one may appear while this one is being fetched.
    return fetch(transport, manifest.files, lambda f: _calls.checkpoint_file(job_id, manifest.step, f.path), folder, progress)


def dataset(transport: Transport, ref: str, to: Path, progress: Progress | None) -> Path:
    """A data set's files as a folder."""
    found = transport.send(_calls.dataset(ref))
    pinned = f"{found.name}@{found.version}"
    return fetch(transport, found.files, lambda f: _calls.dataset_file(pinned, f.path), to, progress)


def artifact(transport: Transport, job_id: str, name: str, to: Path, progress: Progress | None) -> Path:
    """One artifact as a file. Raises NotFound when the job has none of that name."""
    known = {a.name: a for a in transport.send(_calls.artifacts(job_id)).data}
    if name not in known:
        has = ", ".join(sorted(known)) or "none"
        raise NotFound(problem(404, "not_found", f"{job_id} has no artifact {name!r}; it has {has}"))
    file = FileView(path=name, bytes=known[name].bytes, sha256=known[name].sha256)
    if to.exists() and digest(to) == file.sha256:
        return to
    part = to.with_name(f".{to.name}.{file.sha256[:12]}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    _file(transport, _calls.artifact_file(job_id, name), file, part, Counter(file.bytes, progress))
    os.replace(part, to)
    return to


def fetch(transport: Transport, files: Sequence[FileView], where: Where, folder: Path, progress: Progress | None) -> Path:
    """Fill a hidden folder next to `folder` and rename it when every file has its digest."""
    if _is_whole(folder, files):
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DownloadError(f"{folder} exists and holds something else; choose another place with --to")
    draft = folder.with_name(f".{folder.name}.part")
    places = [(file, inside(draft, file.path)) for file in files]
    counter = Counter(sum(file.bytes for file in files), progress)
    draft.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="stoker-download") as pool:
        for done in [pool.submit(_file, transport, where(file), file, place, counter) for file, place in places]:
            done.result()
    _remove_strangers(draft, {place for _, place in places})
    if folder.exists():
        folder.rmdir()
    os.replace(draft, folder)
    return folder


def _file(transport: Transport, url: str, file: FileView, place: Path, counter: Counter) -> None:
    """One file, with its digest checked. Raises DownloadError when it stays wrong."""
    place.parent.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for tries in range(1, TRIES + 1):
        try:
            _continue(transport, url, file, place, counter)
        except (httpx.TransportError, ServerFault) as error:
            if tries == TRIES:
                raise error if isinstance(error, StokerError) else transport.settings.gone(error) from error
            time.sleep(transport.settings.retries.pause(tries))
            continue
        if digest(place) == file.sha256:
            return
        place.unlink()
        wrong += 1
        if wrong == 2:
            break
    raise DownloadError(f"{file.path}: the bytes do not have the digest that the manifest promises, twice")


def _continue(transport: Transport, url: str, file: FileView, place: Path, counter: Counter) -> None:
    have = place.stat().st_size if place.exists() else 0
    if have > file.bytes:
        have = 0
    if have == file.bytes and place.exists():
        counter.at(file.path, have)
        return
    headers = {"Range": f"bytes={have}-", "If-Range": f'"{file.sha256}"'} if have else {}
    call = Call("GET", url, lambda _: None, headers={**headers, "Accept": "*/*", "Accept-Encoding": "identity"})
    with transport.stream(call, READ_TIMEOUT) as response:
        start = _start(response)
        with place.open("r+b" if place.exists() else "wb") as out:
            out.truncate(start)
            out.seek(start)
            counter.at(file.path, start)
            for chunk in response.iter_raw():  # as it comes: a chunk size would hold back what a cut then loses
                out.write(chunk)
                counter.at(file.path, out.tell())
                if out.tell() > file.bytes:
                    return
    if place.stat().st_size < file.bytes:
        raise httpx.RemoteProtocolError("the answer ended early")


def _start(response: httpx.Response) -> int:
    """Offset of the answer's first byte: a server that does not take part in ranges answers from the start."""
    found = re.match(r"bytes (\d+)-", response.headers.get("content-range", "")) if response.status_code == 206 else None
    return int(found[1]) if found else 0


def _is_whole(folder: Path, files: Sequence[FileView]) -> bool:
    if not folder.is_dir() or not files:
        return False
    places = [(inside(folder, file.path), file) for file in files]
    return all(p.is_file() and p.stat().st_size == f.bytes and digest(p) == f.sha256 for p, f in places)


def _remove_strangers(draft: Path, wanted: set[Path]) -> None:
    """Drop what an earlier download of another checkpoint into the same place left behind."""
    for path in draft.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()
    for path in sorted(draft.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            shutil.rmtree(path)
