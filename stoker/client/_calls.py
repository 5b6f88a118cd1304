"""Every endpoint once, without IO: what is sent, and how the answer is read. Both clients drive these."""

# Annotations stay text: evaluating `Page[JobView]` builds a class, and 80 ms of them would be felt in every command.
from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from pydantic import BaseModel

from stoker.client._wire import JSON, Answer, Call, Params, params, view
from stoker.views import (
    ArtifactView,
    AttemptView,
    CheckpointView,
    DatasetView,
    EventView,
    FileView,
    JobView,
    KeyView,
    MetricsView,
    Page,
    VerdictView,
    WhyView,
    WorkerView,
)

if TYPE_CHECKING:
    from stoker.spec import JobSpec

SpecLike: TypeAlias = "JobSpec | Mapping[str, Any] | str"
"""A job spec: the model, a plain document, or YAML text."""


def submit(spec: SpecLike, idempotency_key: str | None = None, require: Sequence[str] = ()) -> Call[JobView]:
    """`POST /v1/jobs`. Without a key one is made, so that the client's own retries cannot submit twice."""
    headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
    return _spec_call("/v1/jobs", spec, view(JobView), headers, params(require=list(require)))


def create_named(name: str, spec: SpecLike) -> Call[JobView]:
    """`PUT /v1/jobs/by-name/{name}`: creates once."""
    body, media = _encode(spec)
    return Call("PUT", f"/v1/jobs/by-name/{_quoted(name)}", view(JobView), body=body, headers={"Content-Type": media})


def plan(spec: SpecLike) -> Call[dict[str, Any]]:
    """`POST /v1/plans`: validate, resolve, predict."""
    return _spec_call("/v1/plans", spec, Answer.json, {})


def jobs(
    *,
    state: Sequence[str] = (),
    name: str | None = None,
    project: str | None = None,
    labels: Mapping[str, str] | None = None,
    parent: str | None = None,
    since: str | None = None,
    metrics: Sequence[str] = (),
    archived: bool | None = None,
    limit: int | None = None,
    after: str | None = None,
) -> Call[Page[JobView]]:
    """`GET /v1/jobs`, newest first. `metrics` are filters such as `validation/accuracy>=0.9`; `archived` shows those too."""
    asked = [
        *params(state=list(state), name=name, project=project, parent=parent, since=since, archived=archived),
        *params(limit=limit, after=after),
        *((f"label.{key}", value) for key, value in (labels or {}).items()),
        *(_metric_filter(text) for text in metrics),
    ]
    return Call("GET", "/v1/jobs", view(Page[JobView]), asked)


def job(job_id: str, *, wait: bool = False, seconds: float | None = None) -> Call[JobView]:
    """`GET /v1/jobs/{id}`; with `wait` it answers when the job has ended or the seconds are over."""
    asked = params(wait="terminal" if wait else None, timeout=seconds if wait else None)
    return Call("GET", _job(job_id), view(JobView), asked, timeout=(seconds or 0) + 30 if wait else None)


def job_version(job_id: str) -> Call[str]:
    """The job's ETag, which `edit` needs."""
    return Call("GET", _job(job_id), lambda answer: answer.headers.get("etag", ""))


def edit(job_id: str, version: str, changes: Mapping[str, Any]) -> Call[JobView]:
    """`PATCH /v1/jobs/{id}`: name, labels, priority; refused with 412 when the job has changed since `version`."""
    headers = {"Content-Type": JSON, "If-Match": version}
    return Call("PATCH", _job(job_id), view(JobView), headers=headers, body=_json(changes))


def act(job_id: str, verb: str, body: Mapping[str, Any] | None = None) -> Call[JobView]:
    """`POST /v1/jobs/{id}/cancel|pause|resume|retry|archive`."""
    return _post(f"{_job(job_id)}/{verb}", body, view(JobView))


def spec(job_id: str, *, resolved: bool = False) -> Call[dict[str, Any]]:
    """`GET /v1/jobs/{id}/spec`: as submitted, or in full with the origin of each value."""
    return Call("GET", f"{_job(job_id)}/spec", Answer.json, params(resolved=True if resolved else None))


def events(job_id: str, *, after: int | None = None, limit: int | None = None) -> Call[Page[EventView]]:
    return Call("GET", f"{_job(job_id)}/events", view(Page[EventView]), params(after=after, limit=limit))


def metrics(
    job_id: str, *, keys: Sequence[str] = (), max_points: int | None = None, since: str | None = None
) -> Call[MetricsView]:
    asked = params(keys=",".join(keys) or None, max_points=max_points, since=since)
    return Call("GET", f"{_job(job_id)}/metrics", view(MetricsView), asked)


def logs(job_id: str, *, rank: int | None = None, tail: int | None = None, grep: str | None = None) -> Call[str]:
    """The job's output as text, `\\r` collapsed."""
    asked = params(rank=rank, tail=tail, grep=grep)
    return Call("GET", f"{_job(job_id)}/logs", _as_text, asked, headers={"Accept": "text/plain"})


def attempts(job_id: str) -> Call[Page[AttemptView]]:
    return Call("GET", f"{_job(job_id)}/attempts", view(Page[AttemptView]))


def children(job_id: str, *, limit: int | None = None, after: str | None = None) -> Call[Page[JobView]]:
    return Call("GET", f"{_job(job_id)}/children", view(Page[JobView]), params(limit=limit, after=after))


def why(job_id: str) -> Call[WhyView]:
    return Call("GET", f"{_job(job_id)}/why", view(WhyView))


def verdict(job_id: str, require: Sequence[str] = ()) -> Call[VerdictView]:
    """`GET /v1/jobs/{id}/verdict`: the server weighs each `require` against the job's final metrics."""
    return Call("GET", f"{_job(job_id)}/verdict", view(VerdictView), params(require=list(require)))


def checkpoints(job_id: str, *, limit: int | None = None, after: str | None = None) -> Call[Page[CheckpointView]]:
    return Call("GET", f"{_job(job_id)}/checkpoints", view(Page[CheckpointView]), params(limit=limit, after=after))


def checkpoint(job_id: str, which: int | str) -> Call[CheckpointView]:
    """The manifest of a step, of `best` or of `last`."""
    return Call("GET", f"{_job(job_id)}/checkpoints/{which}", view(CheckpointView))


def checkpoint_file(job_id: str, which: int | str, path: str) -> str:
    """Path of the bytes."""
    return f"{_job(job_id)}/checkpoints/{which}/files/{_quoted(path, safe='/')}"


def artifacts(job_id: str) -> Call[Page[ArtifactView]]:
    return Call("GET", f"{_job(job_id)}/artifacts", view(Page[ArtifactView]))


def artifact_file(job_id: str, name: str) -> str:
    """Path of the bytes."""
    return f"{_job(job_id)}/artifacts/{_quoted(name, safe='/')}"


def create_dataset(
    name: str, files: Sequence[FileView], format: str | None = None, delimiter: str | None = None
) -> Call[DatasetView]:
    """`POST /v1/datasets`: a new version made of uploaded blobs; refused while some are missing."""
    more = {key: value for key, value in {"format": format, "delimiter": delimiter}.items() if value is not None}
    body = {"name": name, "files": [f.model_dump() for f in files], **more}
    return _post("/v1/datasets", body, view(DatasetView), timeout=300)


def datasets(*, limit: int | None = None, after: str | None = None) -> Call[Page[DatasetView]]:
    return Call("GET", "/v1/datasets", view(Page[DatasetView]), params(limit=limit, after=after))


def dataset(ref: str) -> Call[DatasetView]:
    """By `name` (the newest version) or `name@version`."""
    return Call("GET", f"/v1/datasets/{_quoted(ref, safe='@')}", view(DatasetView))


def dataset_file(ref: str, path: str) -> str:
    """Path of the bytes."""
    return f"/v1/datasets/{_quoted(ref, safe='@')}/files/{_quoted(path, safe='/')}"


def blob_offset(sha256: str) -> Call[int | None]:
    """`HEAD /v1/blobs/{sha256}`: None when it is stored whole, else how many bytes of it are there."""
    return Call("HEAD", blob(sha256), _offset)


def blob(sha256: str) -> str:
    """Path of the bytes."""
    return f"/v1/blobs/{sha256}"


def workers() -> Call[Page[WorkerView]]:
    return Call("GET", "/v1/workers", view(Page[WorkerView]))


def worker_verb(worker_id: str, verb: str) -> Call[WorkerView]:
    """`POST /v1/workers/{id}/drain|resume`."""
    return _post(f"/v1/workers/{_quoted(worker_id)}/{verb}", None, view(WorkerView))


def keys() -> Call[Page[KeyView]]:
    return Call("GET", "/v1/keys", view(Page[KeyView]))


def create_key(name: str, scopes: Sequence[str], project: str | None, days: int | None) -> Call[KeyView]:
    """The only answer that holds the secret."""
    body = {"name": name, "scopes": list(scopes), "project": project, "expires_in_days": days}
    given = {k: v for k, v in body.items() if v is not None}
    # A secret is not kept for replays, so this one POST cannot be repeated safely.
    return Call("POST", "/v1/keys", view(KeyView), headers={"Content-Type": JSON}, body=_json(given), repeatable=False)


def revoke_key(key_id: str) -> Call[None]:
    return Call("DELETE", f"/v1/keys/{_quoted(key_id)}", lambda _answer: None)


def job_schema() -> Call[dict[str, Any]]:
    return Call("GET", "/v1/schema/job.json", Answer.json)


def rules() -> Call[Any]:
    return Call("GET", "/v1/schema/rules", Answer.json)


def explain(path: str, lang: str = "en") -> Call[dict[str, Any]]:
    return Call("GET", f"/v1/explain/{_quoted(path)}", Answer.json, params(lang=lang))


def version() -> Call[dict[str, Any]]:
    return Call("GET", "/version", Answer.json)


def ready() -> Call[dict[str, Any]]:
    return Call("GET", "/readyz", Answer.json, repeatable=False)


def _job(job_id: str) -> str:
    return f"/v1/jobs/{_quoted(job_id)}"


def _quoted(text: str, safe: str = "") -> str:
    return quote(text, safe=safe)


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _encode(spec_like: SpecLike) -> tuple[bytes, str]:
    match spec_like:
        case str():
            return spec_like.encode(), "application/yaml"
        case BaseModel():
            return _json(spec_like.model_dump(mode="json")), JSON
        case _:
            return _json(spec_like), JSON


def _spec_call(path: str, spec_like: SpecLike, parse: Any, headers: Mapping[str, str], asked: Params = ()) -> Call[Any]:
    body, media = _encode(spec_like)
    return Call("POST", path, parse, asked, headers={**headers, "Content-Type": media}, body=body)


def _post(path: str, body: Mapping[str, Any] | None, parse: Any, timeout: float | None = None) -> Call[Any]:
    """A POST that may be repeated, thanks to a key made for it."""
    headers = {"Idempotency-Key": str(uuid.uuid4())} | ({"Content-Type": JSON} if body is not None else {})
    return Call("POST", path, parse, headers=headers, body=None if body is None else _json(body), timeout=timeout)


def _metric_filter(text: str) -> tuple[str, str]:
    for op in (">=", "<=", "==", "!=", ">", "<"):
        key, found, value = text.partition(op)
        if found:
            return f"metric.{key.strip()}{op}", value.strip()
    raise ValueError(f"not a filter: {text!r}; it looks like validation/accuracy>=0.9")


def _as_text(answer: Answer) -> str:
    return answer.body.decode("utf-8", errors="replace")


def _offset(answer: Answer) -> int | None:
    return None if answer.status == 200 else int(answer.headers.get("upload-offset", "0"))
