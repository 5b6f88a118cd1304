"""Uploading a data set: hash, ask, send only the bytes that are missing, several at once, each from where it was cut."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from stoker.client import _calls
from stoker.client._hashing import chunks, manifest
from stoker.client._progress import Counter, Progress
from stoker.client._transport import Transport
from stoker.client._wire import Answer, error_of
from stoker.errors import ApiError, Conflict, Invalid, NotFound, ServerFault, StokerError
from stoker.views import DatasetView, FileView

PARALLEL = 4
TRIES = 8
WRITE_TIMEOUT = 120.0
"""Seconds for the server to verify and store a whole file after its last byte."""


def dataset(
    transport: Transport,
    name: str,
    path: Path,
    progress: Progress | None,
    format: str | None = None,
    delimiter: str | None = None,
) -> DatasetView:
    """A new version. Raises ConfigError for an empty path, ApiError for what the server refuses."""
    files = manifest(path)
    views = [view for view, _ in files]
    try:
        return transport.send(_calls.create_dataset(name, views, format, delimiter))
    except (Conflict, Invalid, NotFound) as error:
        if "blob" not in error.problem.code:
            raise
    counter = Counter(sum(view.bytes for view in views), progress)
    unique = {view.sha256: (view, file) for view, file in files}
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="stoker-upload") as pool:
        for done in [pool.submit(blob, transport, view, file, counter) for view, file in unique.values()]:
            done.result()
    return transport.send(_calls.create_dataset(name, views, format, delimiter))


def blob(transport: Transport, view: FileView, path: Path, counter: Counter) -> None:
    """Send one file's missing bytes. Raises the last error when it stays unsent."""
    for tries in range(1, TRIES + 1):
        offset = transport.send(_calls.blob_offset(view.sha256))
        counter.at(view.sha256, view.bytes if offset is None else offset)
        if offset is None:
            return
        try:
            _put(transport, view, path, offset, counter)
        except (httpx.TransportError, ServerFault, Conflict) as error:
            if tries == TRIES:
                raise error if isinstance(error, StokerError) else transport.settings.gone(error) from error
            time.sleep(transport.settings.retries.pause(tries))
        else:
            return


def _put(transport: Transport, view: FileView, path: Path, offset: int, counter: Counter) -> None:
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(view.bytes - offset)}
    if offset:
        headers["Upload-Offset"] = str(offset)
    body = (counter.passed(view.sha256, chunk) for chunk in chunks(path, offset))
    response = transport.http.put(_calls.blob(view.sha256), content=body, headers=headers, timeout=WRITE_TIMEOUT)
    if response.status_code >= 400:
        raise _refused(response)


def _refused(response: httpx.Response) -> ApiError:
    return error_of(Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, response.content))
