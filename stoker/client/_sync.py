"""The synchronous client, written by `make sync-client` from `_async.py`: change that file, not this one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx

from stoker.client import _calls, _download, _upload
from stoker.client._calls import SpecLike
from stoker.client._following import Follower
from stoker.client._log_following import LogFollower
from stoker.client._progress import Progress
from stoker.client._transport import Settings, Transport
from stoker.client._waiting import Wait
from stoker.client._wire import Call
from stoker.errors import ApiError, ServerUnreachable
from stoker.views import (
    ArtifactView,
    AttemptView,
    CheckpointView,
    DatasetView,
    EventView,
    JobView,
    KeyView,
    LogChunkView,
    MetricsView,
    Page,
    VerdictView,
    WhyView,
    WorkerView,
)

T = TypeVar("T")


class Client:
    """Calls a Stoker server. Methods raise `ApiError` for what the server refuses and `ServerUnreachable` when it does not answer.

    `Client` has every method; those of `AsyncClient` are awaited, and its lists, events and logs are asynchronous iterators.
    Unset arguments come from STOKER_URL, STOKER_KEY, STOKER_PROJECT, `stoker.toml` or the user's file. `timeout` is in seconds per
    request; `retries` is how often a request is sent again that may be repeated.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        project: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 5,
    ) -> None:
        self._transport = Transport(Settings.load(url, key, project, timeout, retries))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.http.close()

    @property
    def url(self) -> str:
        return self._transport.settings.url

    def send(self, call: Call[T]) -> T:
        """Send a call and parse the answer."""
        return self._transport.send(call)

    # Jobs

    def submit(self, spec: SpecLike, *, idempotency_key: str | None = None, require: Sequence[str] = ()) -> JobView:
        """Submit a spec: a JobSpec, a plain document, or YAML text. With the same key and spec, the same job.

        `require` are its gates, such as `validation/accuracy>=0.95`; the server judges them when the job has ended.
        """
        return self.send(_calls.submit(spec, idempotency_key, require))

    def create_named(self, name: str, spec: SpecLike) -> JobView:
        """The job of that name, created if there is none."""
        return self.send(_calls.create_named(name, spec))

    def plan(self, spec: SpecLike) -> dict[str, Any]:
        """Predicted parameters, memory, steps and sizes; nothing runs."""
        return self.send(_calls.plan(spec))

    def jobs(self, **filters: Any) -> Iterator[JobView]:
        """All jobs that match, newest first; see `_calls.jobs` for the filters."""
        return self._pages(lambda after: _calls.jobs(**{**self._filters(filters), "after": after}))

    def jobs_page(self, **filters: Any) -> Page[JobView]:
        return self.send(_calls.jobs(**self._filters(filters)))

    def job(self, job_id: str) -> JobView:
        return self.send(_calls.job(job_id))

    def edit(self, job_id: str, **changes: Any) -> JobView:
        """Change name, labels or priority. Raises Conflict when another client changed the job meanwhile."""
        return self.send(_calls.edit(job_id, self.send(_calls.job_version(job_id)), changes))

    def cancel(self, job_id: str) -> JobView:
        return self.send(_calls.act(job_id, "cancel"))

    def pause(self, job_id: str) -> JobView:
        return self.send(_calls.act(job_id, "pause"))

    def resume(self, job_id: str) -> JobView:
        return self.send(_calls.act(job_id, "resume"))

    def retry(self, job_id: str, *, from_start: bool = False) -> JobView:
        """Run it again from its last checkpoint, or from the start."""
        return self.send(_calls.act(job_id, "retry", {"from_start": True} if from_start else None))

    def archive(self, job_id: str) -> JobView:
        return self.send(_calls.act(job_id, "archive"))

    def spec(self, job_id: str, *, resolved: bool = False) -> dict[str, Any]:
        return self.send(_calls.spec(job_id, resolved=resolved))

    def attempts(self, job_id: str) -> list[AttemptView]:
        return (self.send(_calls.attempts(job_id))).data

    def children(self, job_id: str) -> Iterator[JobView]:
        return self._pages(lambda after: _calls.children(job_id, after=after))

    def why(self, job_id: str) -> WhyView:
        """Why the job waits."""
        return self.send(_calls.why(job_id))

    def verdict(self, job_id: str, require: Sequence[str] = ()) -> VerdictView:
        """The server's verdict on gates such as `validation/accuracy>=0.95`."""
        return self.send(_calls.verdict(job_id, require))

    def metrics(
        self, job_id: str, keys: Sequence[str] = (), *, max_points: int | None = None, since: str | None = None
    ) -> MetricsView:
        return self.send(_calls.metrics(job_id, keys=keys, max_points=max_points, since=since))

    def logs(self, job_id: str, *, rank: int | None = None, tail: int | None = None, grep: str | None = None) -> str:
        return self.send(_calls.logs(job_id, rank=rank, tail=tail, grep=grep))

    def events(self, job_id: str, *, after: int | None = None, limit: int | None = None) -> Page[EventView]:
        return self.send(_calls.events(job_id, after=after, limit=limit))

    def wait(self, job_id: str, *, timeout: float | None = None, each: Callable[[JobView], None] | None = None) -> JobView:
        """The job once it has ended. `each` is called with every answer meanwhile. Waiting continues through a restart of the server.

        Raises WaitTimeout after `timeout` seconds; the job still runs.
        """
        wait = Wait(job_id, timeout)
        while not wait.done:
            call = wait.call()
            try:
                job = self.send(call)
            except (ApiError, ServerUnreachable) as error:
                time.sleep(wait.failed(error))
                continue
            pause = wait.heard(job)
            if each is not None:
                each(job)
            time.sleep(pause)
        assert wait.job is not None
        return wait.job

    def watch(self, job_id: str, *, after: int = 0) -> Iterator[EventView]:
        """Every event after number `after` exactly once, in order, until the job's `end`, also when the connection is lost meanwhile.

        Raises ServerUnreachable after five minutes without an answer.
        """
        follower = Follower(job_id, after)
        while True:
            try:
                # A retried job has an `end` in the middle of its log, so the job says whether this was the last.
                if follower.ended and follower.is_over(self.job(job_id)):
                    return
                with self._transport.stream(follower.call()) as response:
                    for chunk in response.iter_bytes():
                        yield from follower.feed(chunk)
                        if follower.ended:
                            break
            except httpx.TransportError as error:
                follower.failed(self._transport.settings.gone(error))
            except (ApiError, ServerUnreachable) as error:
                follower.failed(error)
            time.sleep(follower.pause())

    def follow_logs(self, job_id: str, *, rank: int | None = None) -> Iterator[LogChunkView]:
        """The job's output chunk by chunk, each once, until the job has ended and all of it was sent."""
        follower = LogFollower(job_id, rank)
        while not follower.ended:
            try:
                with self._transport.stream(follower.call()) as response:
                    for data in response.iter_bytes():
                        yield from follower.feed(data)
                        if follower.ended:
                            return
            except httpx.TransportError as error:
                follower.failed(self._transport.settings.gone(error))
            except (ApiError, ServerUnreachable) as error:
                follower.failed(error)
            time.sleep(follower.pause())

    # Results

    def checkpoints(self, job_id: str) -> list[CheckpointView]:
        return [c for c in self._pages(lambda after: _calls.checkpoints(job_id, after=after))]

    def checkpoint(self, job_id: str, which: int | str = "best") -> CheckpointView:
        """The manifest of a step, `best` or `last`."""
        return self.send(_calls.checkpoint(job_id, which))

    def artifacts(self, job_id: str) -> list[ArtifactView]:
        return (self.send(_calls.artifacts(job_id))).data

    def download(
        self, job_id: str, which: int | str = "best", to: str | Path | None = None, *, progress: Progress | None = None
    ) -> Path:
        """Fetch a checkpoint into a folder, which appears only when every file has its digest; returns the folder.

        An interrupted download continues. Raises DownloadError when bytes stay wrong or the folder holds other files.
        """
        return self._transport.transfer(_download.checkpoint, job_id, which, Path(to) if to else None, progress)

    def download_artifact(self, job_id: str, name: str, to: str | Path, *, progress: Progress | None = None) -> Path:
        return self._transport.transfer(_download.artifact, job_id, name, Path(to), progress)

    # Data sets

    def upload(
        self,
        name: str,
        path: str | Path,
        *,
        format: str | None = None,
        delimiter: str | None = None,
        progress: Progress | None = None,
    ) -> DatasetView:
        """Make a new version of a data set from a file or a folder; only bytes that the server lacks are sent.

        `format` is csv, parquet, text, image_folder or arrays; unset, detected.
        """
        return self._transport.transfer(_upload.dataset, name, Path(path), progress, format, delimiter)

    def datasets(self) -> Iterator[DatasetView]:
        return self._pages(lambda after: _calls.datasets(after=after))

    def dataset(self, ref: str) -> DatasetView:
        return self.send(_calls.dataset(ref))

    def download_dataset(self, ref: str, to: str | Path, *, progress: Progress | None = None) -> Path:
        return self._transport.transfer(_download.dataset, ref, Path(to), progress)

    # Workers, keys, knowledge

    def workers(self) -> list[WorkerView]:
        return (self.send(_calls.workers())).data

    def drain(self, worker_id: str) -> WorkerView:
        """Stop placing jobs on a worker; its jobs continue elsewhere from their checkpoints."""
        return self.send(_calls.worker_verb(worker_id, "drain"))

    def undrain(self, worker_id: str) -> WorkerView:
        return self.send(_calls.worker_verb(worker_id, "resume"))

    def keys(self) -> list[KeyView]:
        return (self.send(_calls.keys())).data

    def create_key(self, name: str, scopes: Sequence[str], *, project: str | None = None, days: int | None = None) -> KeyView:
        return self.send(_calls.create_key(name, scopes, project, days))

    def revoke_key(self, key_id: str) -> None:
        self.send(_calls.revoke_key(key_id))

    def job_schema(self) -> dict[str, Any]:
        return self.send(_calls.job_schema())

    def rules(self) -> Any:
        return self.send(_calls.rules())

    def explain(self, path: str, *, lang: str = "en") -> dict[str, Any]:
        return self.send(_calls.explain(path, lang))

    def version(self) -> dict[str, Any]:
        return self.send(_calls.version())

    def ready(self) -> dict[str, Any]:
        return self.send(_calls.ready())

    def _filters(self, given: dict[str, Any]) -> dict[str, Any]:
        """A client made for a project lists that project."""
        return {"project": self._transport.settings.project, **given}

    def _pages(self, page: Callable[[str | None], Call[Page[T]]]) -> Iterator[T]:
        after: str | None = None
        while True:
            answer = self.send(page(after))
            yield from answer.data
            if not answer.has_more or answer.next is None:
                return
            after = answer.next
