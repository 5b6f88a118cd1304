"""The asyncio client: `_calls` over `AsyncTransport`. `make sync-client` writes the synchronous one from this file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx

from stoker.client import _calls, _download, _upload
from stoker.client._calls import SpecLike
from stoker.client._following import Follower
from stoker.client._log_following import LogFollower
from stoker.client._progress import Progress
from stoker.client._transport import AsyncTransport, Settings
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


class AsyncClient:
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
        self._transport = AsyncTransport(Settings.load(url, key, project, timeout, retries))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.http.aclose()

    @property
    def url(self) -> str:
        return self._transport.settings.url

    async def send(self, call: Call[T]) -> T:
        """Send a call and parse the answer."""
        return await self._transport.send(call)

    # Jobs

    async def submit(self, spec: SpecLike, *, idempotency_key: str | None = None, require: Sequence[str] = ()) -> JobView:
        """Submit a spec: a JobSpec, a plain document, or YAML text. With the same key and spec, the same job.

        `require` are its gates, such as `validation/accuracy>=0.95`; the server judges them when the job has ended.
        """
        return await self.send(_calls.submit(spec, idempotency_key, require))

    async def create_named(self, name: str, spec: SpecLike) -> JobView:
        """The job of that name, created if there is none."""
        return await self.send(_calls.create_named(name, spec))

    async def plan(self, spec: SpecLike) -> dict[str, Any]:
        """Predicted parameters, memory, steps and sizes; nothing runs."""
        return await self.send(_calls.plan(spec))

    def jobs(self, **filters: Any) -> AsyncIterator[JobView]:
        """All jobs that match, newest first; see `_calls.jobs` for the filters."""
        return self._pages(lambda after: _calls.jobs(**{**self._filters(filters), "after": after}))

    async def jobs_page(self, **filters: Any) -> Page[JobView]:
        return await self.send(_calls.jobs(**self._filters(filters)))

    async def job(self, job_id: str) -> JobView:
        return await self.send(_calls.job(job_id))

    async def edit(self, job_id: str, **changes: Any) -> JobView:
        """Change name, labels or priority. Raises Conflict when another client changed the job meanwhile."""
        return await self.send(_calls.edit(job_id, await self.send(_calls.job_version(job_id)), changes))

    async def cancel(self, job_id: str) -> JobView:
        return await self.send(_calls.act(job_id, "cancel"))

    async def pause(self, job_id: str) -> JobView:
        return await self.send(_calls.act(job_id, "pause"))

    async def resume(self, job_id: str) -> JobView:
        return await self.send(_calls.act(job_id, "resume"))

    async def retry(self, job_id: str, *, from_start: bool = False) -> JobView:
        """Run it again from its last checkpoint, or from the start."""
        return await self.send(_calls.act(job_id, "retry", {"from_start": True} if from_start else None))

    async def archive(self, job_id: str) -> JobView:
        return await self.send(_calls.act(job_id, "archive"))

    async def spec(self, job_id: str, *, resolved: bool = False) -> dict[str, Any]:
        return await self.send(_calls.spec(job_id, resolved=resolved))

    async def attempts(self, job_id: str) -> list[AttemptView]:
        return (await self.send(_calls.attempts(job_id))).data

    def children(self, job_id: str) -> AsyncIterator[JobView]:
        return self._pages(lambda after: _calls.children(job_id, after=after))

    async def why(self, job_id: str) -> WhyView:
        """Why the job waits."""
        return await self.send(_calls.why(job_id))

    async def verdict(self, job_id: str, require: Sequence[str] = ()) -> VerdictView:
        """The server's verdict on gates such as `validation/accuracy>=0.95`."""
        return await self.send(_calls.verdict(job_id, require))

    async def metrics(
        self, job_id: str, keys: Sequence[str] = (), *, max_points: int | None = None, since: str | None = None
    ) -> MetricsView:
        return await self.send(_calls.metrics(job_id, keys=keys, max_points=max_points, since=since))

    async def logs(self, job_id: str, *, rank: int | None = None, tail: int | None = None, grep: str | None = None) -> str:
        return await self.send(_calls.logs(job_id, rank=rank, tail=tail, grep=grep))

    async def events(self, job_id: str, *, after: int | None = None, limit: int | None = None) -> Page[EventView]:
        return await self.send(_calls.events(job_id, after=after, limit=limit))

    async def wait(self, job_id: str, *, timeout: float | None = None, each: Callable[[JobView], None] | None = None) -> JobView:
        """The job once it has ended. `each` is called with every answer meanwhile. Waiting continues through a restart of the server.

        Raises WaitTimeout after `timeout` seconds; the job still runs.
        """
        wait = Wait(job_id, timeout)
        while not wait.done:
            call = wait.call()
            try:
                job = await self.send(call)
            except (ApiError, ServerUnreachable) as error:
                await asyncio.sleep(wait.failed(error))
                continue
            pause = wait.heard(job)
            if each is not None:
                each(job)
            await asyncio.sleep(pause)
        assert wait.job is not None
        return wait.job

    async def watch(self, job_id: str, *, after: int = 0) -> AsyncIterator[EventView]:
        """Every event after number `after` exactly once, in order, until the job's `end`, also when the connection is lost meanwhile.

        Raises ServerUnreachable after five minutes without an answer.
        """
        follower = Follower(job_id, after)
        while True:
            try:
                # A retried job has an `end` in the middle of its log, so the job says whether this was the last.
                if follower.ended and follower.is_over(await self.job(job_id)):
                    return
                async with self._transport.stream(follower.call()) as response:
                    async for chunk in response.aiter_bytes():
                        for event in follower.feed(chunk):
                            yield event
                        if follower.ended:
                            break
            except httpx.TransportError as error:
                follower.failed(self._transport.settings.gone(error))
            except (ApiError, ServerUnreachable) as error:
                follower.failed(error)
            await asyncio.sleep(follower.pause())

    async def follow_logs(self, job_id: str, *, rank: int | None = None) -> AsyncIterator[LogChunkView]:
        """The job's output chunk by chunk, each once, until the job has ended and all of it was sent."""
        follower = LogFollower(job_id, rank)
        while not follower.ended:
            try:
                async with self._transport.stream(follower.call()) as response:
                    async for data in response.aiter_bytes():
                        for chunk in follower.feed(data):
                            yield chunk
                        if follower.ended:
                            return
            except httpx.TransportError as error:
                follower.failed(self._transport.settings.gone(error))
            except (ApiError, ServerUnreachable) as error:
                follower.failed(error)
            await asyncio.sleep(follower.pause())

    # Results

    async def checkpoints(self, job_id: str) -> list[CheckpointView]:
        return [c async for c in self._pages(lambda after: _calls.checkpoints(job_id, after=after))]

    async def checkpoint(self, job_id: str, which: int | str = "best") -> CheckpointView:
        """The manifest of a step, `best` or `last`."""
        return await self.send(_calls.checkpoint(job_id, which))

    async def artifacts(self, job_id: str) -> list[ArtifactView]:
        return (await self.send(_calls.artifacts(job_id))).data

    async def download(
        self, job_id: str, which: int | str = "best", to: str | Path | None = None, *, progress: Progress | None = None
    ) -> Path:
        """Fetch a checkpoint into a folder, which appears only when every file has its digest; returns the folder.

        An interrupted download continues. Raises DownloadError when bytes stay wrong or the folder holds other files.
        """
        return await self._transport.transfer(_download.checkpoint, job_id, which, Path(to) if to else None, progress)

    async def download_artifact(self, job_id: str, name: str, to: str | Path, *, progress: Progress | None = None) -> Path:
        return await self._transport.transfer(_download.artifact, job_id, name, Path(to), progress)

    # Data sets

    async def upload(
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
        return await self._transport.transfer(_upload.dataset, name, Path(path), progress, format, delimiter)

    def datasets(self) -> AsyncIterator[DatasetView]:
        return self._pages(lambda after: _calls.datasets(after=after))

    async def dataset(self, ref: str) -> DatasetView:
        return await self.send(_calls.dataset(ref))

    async def download_dataset(self, ref: str, to: str | Path, *, progress: Progress | None = None) -> Path:
        return await self._transport.transfer(_download.dataset, ref, Path(to), progress)

    # Workers, keys, knowledge

    async def workers(self) -> list[WorkerView]:
        return (await self.send(_calls.workers())).data

    async def drain(self, worker_id: str) -> WorkerView:
        """Stop placing jobs on a worker; its jobs continue elsewhere from their checkpoints."""
        return await self.send(_calls.worker_verb(worker_id, "drain"))

    async def undrain(self, worker_id: str) -> WorkerView:
        return await self.send(_calls.worker_verb(worker_id, "resume"))

    async def keys(self) -> list[KeyView]:
        return (await self.send(_calls.keys())).data

    async def create_key(
        self, name: str, scopes: Sequence[str], *, project: str | None = None, days: int | None = None
    ) -> KeyView:
        return await self.send(_calls.create_key(name, scopes, project, days))

    async def revoke_key(self, key_id: str) -> None:
        await self.send(_calls.revoke_key(key_id))

    async def job_schema(self) -> dict[str, Any]:
        return await self.send(_calls.job_schema())

    async def rules(self) -> Any:
        return await self.send(_calls.rules())

    async def explain(self, path: str, *, lang: str = "en") -> dict[str, Any]:
        return await self.send(_calls.explain(path, lang))

    async def version(self) -> dict[str, Any]:
        return await self.send(_calls.version())

    async def ready(self) -> dict[str, Any]:
        return await self.send(_calls.ready())

    def _filters(self, given: dict[str, Any]) -> dict[str, Any]:
        """A client made for a project lists that project."""
        return {"project": self._transport.settings.project, **given}

    async def _pages(self, page: Callable[[str | None], Call[Page[T]]]) -> AsyncIterator[T]:
        after: str | None = None
        while True:
            answer = await self.send(page(after))
            for entry in answer.data:
                yield entry
            if not answer.has_more or answer.next is None:
                return
            after = answer.next
