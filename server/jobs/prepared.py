"""A document that was understood: resolved, planned, and ready to become the row of a job."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from types import SimpleNamespace
from typing import Any

import orjson
from sqlalchemy import Row, bindparam, select
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from server.auth import Principal
from server.datasets.service import facts_of, parse_ref
from server.datasets.tables import Dataset
from server.db import Encoded, to_json, utcnow
from server.errors import Refusal, problem, spec_problem
from server.jobs import store
from server.jobs.continued import Source, source_of
from server.jobs.directories import without_directory
from server.jobs.start import Begun, begun, unfit
from server.jobs.teacher import Lesson, bound, misfits
from server.jobs.views import whole_view
from server.jobs.vocabulary import spoken
from stoker.errors import Finding, SpecError
from stoker.facts import DatasetFacts
from stoker.plan import Plan, needs, plan
from stoker.spec import JobSpec
from stoker.spec.document import Document
from stoker.spec.load import compose
from stoker.spec.opened import Opened, unread
from stoker.spec.problem import problem_of
from stoker.spec.resolve import Resolved, resolve


@dataclass(frozen=True)
class Pinned:
    """The version of a data set that a document's reference stood for."""

    project: str
    name: str
    asked: int | None
    """The version that the document names; None: the newest."""
    id: str
    """Of the version's row."""


@dataclass(frozen=True)
class Prepared:
    """A document that was understood: everything of a job row that the document decides."""

    spec: JobSpec
    columns: dict[str, Any]
    warnings: tuple[Finding, ...]
    pinned: Pinned | None = None
    source: Source | None = None
    """The checkpoint that the job goes on from."""
    start: str | None = None
    """The id of the checkpoint whose weights it begins with."""
    lasting: bool = True
    """Whether the same document means the same for as long as its data set has no newer version."""

    def renamed(self, name: str) -> "Prepared":
        """The same, filed under a name unless the document has one."""
        return replace(self, columns={**self.columns, "name": self.columns["name"] or name})

    @cached_property
    def row(self) -> dict[str, Any]:
        """A new job's row but for its id and times, its documents as JSON text: made once for all jobs of the document."""
        whole = FRESH | self.columns
        return {k: Encoded(to_json(v)) if isinstance(v, dict | list) else v for k, v in whole.items()}

    @cached_property
    def view(self) -> dict[str, Any]:
        """A new job's view as JSON but for its id and times."""
        return whole_view(SimpleNamespace(**FRESH | self.columns | _UNBORN)).model_dump(mode="json")


FRESH: dict[str, Any] = {c.name: None for c in store.JOBS.c} | {
    "state": "queued",
    "desired": "run",
    "phase": "waiting_for_devices",
    "epoch": 0,
    "start_epoch": 0,
    "attempts": 0,
    "counted_failures": 0,
    "infra_failures": 0,
    "gates": [],
    "metrics": {},
    "last_event": 1,
    "version": 1,
}
"""What the row of every new job holds."""
_UNBORN = {"id": "", "created_at": utcnow(), "queued_at": utcnow()}

_cache: OrderedDict[tuple[str, str, str], Prepared] = OrderedDict()
_facts_cache: OrderedDict[str, DatasetFacts] = OrderedDict()
"""By the id of a data set's version, which never changes."""
_cache_lock = Lock()
_DATASETS = Dataset.metadata.tables["datasets"]
_NEWEST = (
    select(_DATASETS.c.id, _DATASETS.c.version)
    .where(_DATASETS.c.project == bindparam("project"), _DATASETS.c.name == bindparam("name"))
    .order_by(_DATASETS.c.version.desc())
    .limit(1)
)
_EXACT = _NEWEST.where(_DATASETS.c.version == bindparam("version"))
_CACHED = 256


@dataclass(frozen=True)
class Asked:
    """A document, who sent it, and for which project."""

    who: Principal
    project: str
    document: Document


def prepare_all(session: Session, asked: Sequence[Asked]) -> list[Prepared | Exception]:
    """Each document prepared, or why it is refused; for `Database.read_together`.

    Raises what the database says: after it PostgreSQL answers nothing more to the documents that share the transaction.
    """
    return [_tried(session, each) for each in asked]


def _tried(session: Session, asked: Asked) -> Prepared | Exception:
    try:
        return prepare(session, asked.who, asked.project, asked.document)
    except SQLAlchemyError:
        raise
    except Exception as error:
        return error


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
    document, directory = without_directory(session, project, document)
    facts, pinned = found if (found := _facts(session, project, value)) else (None, None)
    text = orjson.dumps(document.value, option=orjson.OPT_SORT_KEYS)
    text += orjson.dumps(dict(document.origins), option=orjson.OPT_SORT_KEYS)
    lesson = bound(session, who, project, document.value)
    document = replace(document, value=lesson.value)
    text += orjson.dumps(lesson.value["training"]) if lesson.spec is not None else b""
    start = begun(session, who, project, document.value)
    words = spoken(session, project, start.value)
    start = replace(start, value=words.value, findings=(*start.findings, *words.findings), found=start.found or words.found)
    document = replace(document, value=start.value)
    document, source = source_of(session, who, project, document)
    if source is not None or start.found or directory.origins:  # it may be let go any moment, so nothing is remembered
        return replace(
            _prepare(project, value, document, lesson, start, facts, pinned, source, directory=directory), lasting=False
        )
    key = (project, hashlib.sha256(text).hexdigest(), f"{pinned}:{facts.digest}" if facts else "")
    with _cache_lock:
        known = _cache.get(key)
    if known is not None:
        return known
    prepared = _prepare(project, value, document, lesson, start, facts, pinned, directory=directory)
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


def _facts(session: Session, project: str, value: dict[str, Any]) -> tuple[DatasetFacts, Pinned] | None:
    """The data set that the document names; None when it names none that could exist, which `resolve` reports."""
    data = value.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    ref = source.get("dataset") if isinstance(source, dict) else None
    if not isinstance(ref, str) or len(ref) > 200:
        return None
    name, version = parse_ref(ref)
    row = newest(session, project, name, version)
    if row is None:
        return None
    pinned = Pinned(project, name, version, row.id)
    with _cache_lock:
        known = _facts_cache.get(row.id)
    if known is None:
        known = facts_of(session, project, f"{name}@{row.version}")
        with _cache_lock:
            _facts_cache[row.id] = known
            if len(_facts_cache) > _CACHED:
                _facts_cache.popitem(last=False)
    return known, pinned


def newest(session: Session, project: str, name: str, version: int | None) -> Row[Any, Any] | None:
    """Id and version of a data set's version, by default the newest."""
    wanted = {"project": project, "name": name, "version": version}
    return session.connection().execute(_NEWEST if version is None else _EXACT, wanted).first()


def _prepare(
    project: str,
    submitted: dict[str, Any],
    document: Document,
    lesson: Lesson,
    start: Begun,
    facts: DatasetFacts | None,
    pinned: Pinned | None,
    source: Source | None = None,
    *,
    directory: Opened,
) -> Prepared:
    try:
        resolved = resolve(document, facts)
        if facts is None:
            raise SpecError([_no_dataset(), *lesson.findings, *start.findings])
        found = [*lesson.findings, *start.findings, *unread(directory, problem_of(resolved.spec, facts).vocab_size)]
        found += misfits(resolved.spec, lesson.spec) if lesson.spec is not None else []
        found += unfit(resolved.spec, start.spec) if start.spec is not None else []
        if found:
            raise SpecError(found)
        predicted = plan(resolved.spec, facts, teacher=lesson.spec)
        if source is not None:
            source.check(resolved.spec, predicted)
    except SpecError as error:
        raise spec_problem(error) from error
    warnings = (*resolved.warnings, *_tight(resolved.spec, predicted))
    return Prepared(resolved.spec, _columns(project, submitted, resolved, predicted), warnings, pinned, source, start.checkpoint)


def _tight(spec: JobSpec, predicted: Plan) -> tuple[Finding, ...]:
    """What a job reserves is what it is placed by, so it may be less than the plan says; whoever asks for that is told."""
    reserved = spec.resources.memory_gb
    if reserved is None or predicted.fits is not False:
        return ()
    each = predicted.memory.total_bytes / spec.distributed.nodes / 2**30
    message = f"a node's part of the run is predicted to take {each:.2f} GiB, and {reserved:g} are reserved"
    hint = "reserve more or leave it out; `stoker plan` shows what would take less"
    return (Finding(pointer="/resources/memory_gb", code="reserves-too-little", message=message, hint=hint, severity="warning"),)


def _no_dataset() -> Finding:
    return Finding(
        pointer="/data/source/dataset",
        code="dataset-not-found",
        message="this project has no such data set, or not in that version",
        hint="`stoker datasets ls` shows what there is; `stoker datasets upload` adds one",
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
