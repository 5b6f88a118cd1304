"""The single path by which a job comes to be: document → resolved spec → plan → row, event, wake-up."""

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from types import SimpleNamespace
from typing import Any

import orjson
from sqlalchemy import select
from sqlmodel import Session

from server.auth import Principal
from server.datasets.service import facts_of, parse_ref
from server.datasets.tables import Dataset
from server.db import new_id, utcnow
from server.errors import Refusal, problem, spec_problem
from server.events import store as events
from server.hub import job_changed, work_appeared
from server.jobs import store
from server.settings import Settings
from stoker.errors import Finding, SpecError
from stoker.facts import DatasetFacts
from stoker.plan import Plan, needs, plan
from stoker.spec import JobSpec
from stoker.spec.document import Document
from stoker.spec.load import compose
from stoker.spec.resolve import Resolved, resolve


@dataclass(frozen=True)
class Prepared:
    """A document that was understood: everything of a job row that the document decides."""

    spec: JobSpec
    columns: dict[str, Any]
    warnings: tuple[Finding, ...]

    def renamed(self, name: str) -> "Prepared":
        """The same, filed under a name unless the document has one."""
        return replace(self, columns={**self.columns, "name": self.columns["name"] or name})


_cache: OrderedDict[tuple[str, str, str], Prepared] = OrderedDict()
_facts_cache: OrderedDict[str, DatasetFacts] = OrderedDict()
"""By the id of a data set's version, which never changes."""
_cache_lock = Lock()
_DATASETS = Dataset.metadata.tables["datasets"]
_CACHED = 256


def prepare(session: Session, who: Principal, project: str, document: Document) -> Prepared:
    """Resolve and plan a document for a project.

    The facts of its data set are part of the key under which the result is remembered, so a new version of the data set
    gives a new answer. Raises 422 with every finding, 403 `wrong_project`.
    """
    document = _composed(session, who, document)
    value = document.value
    project = _project(who, project, value)
    if project != "default" and "project" not in value:
        document = replace(document, value={**value, "project": project}, origins={**document.origins, "/project": "auto"})
    facts = _facts(session, project, value)
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    text += orjson.dumps(dict(document.origins), option=orjson.OPT_SORT_KEYS)
    key = (project, hashlib.sha256(text).hexdigest(), f"{facts.name}@{facts.version}:{facts.digest}" if facts else "")
    with _cache_lock:
        known = _cache.get(key)
    if known is not None:
        return known
    prepared = _prepare(project, value, document, facts)
    with _cache_lock:
        _cache[key] = prepared
        if len(_cache) > _CACHED:
            _cache.popitem(last=False)
    return prepared


def _composed(session: Session, who: Principal, document: Document) -> Document:
    """The document with what it extends: a preset, or a job that the key may see."""

    def fetch(job_id: str) -> dict[str, Any] | None:
        try:
            submitted: dict[str, Any] = json.loads(store.whole_job(session, who, job_id).submitted)
        except Refusal:
            return None
        return submitted

    try:
        return compose(document, fetch=fetch) if "extends" in document.value else document
    except SpecError as error:
        raise spec_problem(error) from error


def _project(who: Principal, project: str, value: dict[str, Any]) -> str:
    named = value.get("project")
    if not isinstance(named, str):
        return project
    if not who.sees(named):
        raise problem(403, "wrong_project", "The key belongs to another project than the document names.")
    return named


def _facts(session: Session, project: str, value: dict[str, Any]) -> DatasetFacts | None:
    """Facts of the data set that the document names; None when it names none that could exist, which `resolve` reports."""
    data = value.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    ref = source.get("dataset") if isinstance(source, dict) else None
    if not isinstance(ref, str) or len(ref) > 200:
        return None
    name, version = parse_ref(ref)
    newest = select(_DATASETS.c.id, _DATASETS.c.version).where(_DATASETS.c.project == project, _DATASETS.c.name == name)
    if version is not None:
        newest = newest.where(_DATASETS.c.version == version)
    row = session.execute(newest.order_by(_DATASETS.c.version.desc()).limit(1)).one_or_none()
    if row is None:
        return None
    with _cache_lock:
        known = _facts_cache.get(row.id)
    if known is None:
        known = facts_of(session, project, f"{name}@{row.version}")
        with _cache_lock:
            _facts_cache[row.id] = known
            if len(_facts_cache) > _CACHED:
                _facts_cache.popitem(last=False)
    return known


def _prepare(project: str, submitted: dict[str, Any], document: Document, facts: DatasetFacts | None) -> Prepared:
    try:
        resolved = resolve(document, facts)
        if facts is None:
            raise SpecError([_no_dataset()])
        predicted = plan(resolved.spec, facts)
    except SpecError as error:
        raise spec_problem(error) from error
    return Prepared(resolved.spec, _columns(project, submitted, resolved, predicted), resolved.warnings)


def _no_dataset() -> Finding:
    return Finding(
        pointer="/data/source/dataset",
        code="dataset-not-found",
        message="this project has no such data set, or not in that version",
        hint="`stoker datasets ls` shows what there is; `stoker datasets push` adds one",
    )


def _columns(project: str, submitted: dict[str, Any], resolved: Resolved, predicted: Plan) -> dict[str, Any]:
    spec = resolved.spec
    return {
        "project": project,
        "name": spec.name,
        "kind": "train",
        "priority": spec.priority,
        "labels": dict(spec.labels),
        "submitted": json.dumps(submitted, ensure_ascii=False, separators=(",", ":")),
        "spec": resolved.canonical,
        "origins": dict(resolved.origins),
        "spec_digest": resolved.digest,
        "plan": predicted.model_dump(mode="json"),
        "needs": {**needs(spec, predicted), "time_limit_seconds": spec.resources.time_limit_seconds},
        "objective": {"key": spec.checkpoint.monitor, "mode": _mode(spec)},
        "progress": {"step": 0, "total_steps": predicted.model_dump(mode="json")["steps"]["total"]},
    }


def _mode(spec: JobSpec) -> str:
    """Direction of the monitored metric: what the spec says, else what the metric says; losses are minimised."""
    if spec.checkpoint.mode is not None:
        return spec.checkpoint.mode
    name = spec.checkpoint.monitor.partition("/")[2]
    for metric in spec.evaluation.metrics or ():
        if metric.key == name:
            return metric.mode
    return "min"


def insert(
    session: Session, settings: Settings, prepared: Prepared, *, gates: Sequence[str] = (), unique_name: str | None = None
) -> SimpleNamespace:
    """Store a prepared job with its first event; after the commit the scheduler looks. Returns its row.

    Raises 429 `queue_full` when the project has as many waiting jobs as it may.
    """
    now, job_id, project = utcnow(), new_id("job"), prepared.columns["project"]
    if _waiting(session, project) >= settings.max_queued_jobs:
        raise problem(429, "queue_full", "The project has too many waiting jobs.", headers={"Retry-After": "60"})
    fresh: dict[str, Any] = {
        "id": job_id,
        "unique_name": unique_name,
        "state": "queued",
        "desired": "run",
        "phase": "waiting_for_devices",
        "epoch": 0,
        "start_epoch": 0,
        "attempts": 0,
        "counted_failures": 0,
        "infra_failures": 0,
        "gates": list(gates),
        "metrics": {},
        "last_event": 1,
        "version": 1,
        "created_at": now,
        "queued_at": now,
    }
    row = {**_BLANK, **prepared.columns, **fresh}
    store.add(session, row)
    events.add(session, job_id, 1, 0, "state", {"to": "queued"}, now)
    job_changed(session, job_id)
    work_appeared(session)
    return SimpleNamespace(**row)


_counted: dict[str, tuple[float, int]] = {}
_BLANK: dict[str, Any] = {c.name: None for c in store.JOBS.c}


def _waiting(session: Session, project: str) -> int:
    """Waiting jobs of a project, counted at most once a second: the bound protects the server, it is no quota."""
    at, count = _counted.get(project, (0.0, 0))
    if time.monotonic() - at > 1:
        at, count = time.monotonic(), store.queued_count(session, project)
    if len(_counted) > 10_000:
        _counted.clear()
    _counted[project] = (at, count + 1)
    return count
