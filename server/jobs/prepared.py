"""A document that was prepared: resolved, planned, and ready to be stored as a job."""

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
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from server.auth import Principal
from server.db import Encoded, to_json, utcnow
from server.errors import Refusal, problem, spec_problem
from server.jobs import store
from server.jobs.views import whole_view
from server.references.catalog import Referred, find_all
from server.references.dataset import FoundDataset
from server.references.reference import Asked, Found
from server.references.teacher import FoundTeacher
from stoker.document.document import Document
from stoker.document.load import compose
from stoker.document.resolve import Resolved, resolve
from stoker.errors import Finding, SpecError
from stoker.plan import Needs, Plan, needs, plan
from stoker.spec import JobSpec


@dataclass(frozen=True)
class Prepared:
    """Everything in the row of a job that its document decides."""

    spec: JobSpec
    columns: dict[str, Any]
    warnings: tuple[Finding, ...]
    found: tuple[Found, ...] = ()
    """What it refers to."""

    @property
    def lasting(self) -> bool:
        """Whether the same document makes the same job until something that it refers to has `moved`."""
        return all(each.lasting for each in self.found)

    def renamed(self, name: str) -> "Prepared":
        """The same under a name, unless the document gives one."""
        return replace(self, columns={**self.columns, "name": self.columns["name"] or name})

    @cached_property
    def row(self) -> dict[str, Any]:
        """The row of a new job without id and times, its documents as JSON text; made once for all jobs of the document."""
        whole = FRESH | self.columns
        return {name: _encoded(value) for name, value in whole.items()}

    @cached_property
    def view(self) -> dict[str, Any]:
        """The view of a new job as JSON, without id and times."""
        return whole_view(SimpleNamespace(**FRESH | self.columns | _UNBORN)).model_dump(mode="json")


def _encoded(value: object) -> object:
    if isinstance(value, Needs):
        value = value.document()
    return Encoded(to_json(value)) if isinstance(value, dict | list) else value


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

Key = tuple[str, ...]
"""Project, digest of the document, digests of what it refers to."""
_cache: OrderedDict[Key, Prepared] = OrderedDict()
_cache_lock = Lock()
_CACHED = 256


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

    The digests of what it refers to are part of the key under which the result is remembered, so a new version of its data
    set gives a new answer. Raises 422 with every finding, 403 `wrong_project`.
    """
    try:
        document = _composed(session, who, document)
        project = _project(who, project, document.value)
        referred = find_all(session, Asked(who, project, _in_project(document, project)))
        if referred.missing or not all(each.lasting for each in referred.found):
            return _work_out(project, document.value, referred)
        key = _key(project, document, referred.found)
        return _known(key) or _remember(key, _work_out(project, document.value, referred))
    except SpecError as error:
        raise spec_problem(error) from error


def _key(project: str, document: Document, found: Sequence[Found]) -> Key:
    text = orjson.dumps(document.value, option=orjson.OPT_SORT_KEYS)
    text += orjson.dumps(dict(document.origins), option=orjson.OPT_SORT_KEYS)
    return (project, hashlib.sha256(text).hexdigest(), *(each.digest for each in found))


def _known(key: Key) -> Prepared | None:
    with _cache_lock:
        return _cache.get(key)


def _remember(key: Key, prepared: Prepared) -> Prepared:
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

    return compose(document, fetch=fetch) if "extends" in document.value else document


def _project(who: Principal, project: str, value: dict[str, Any]) -> str:
    named = value.get("project")
    if not isinstance(named, str):
        return project
    if not who.sees(named):
        raise problem(403, "wrong_project", "The key belongs to another project than the document names.")
    return named


def _in_project(document: Document, project: str) -> Document:
    """The document with its project written in, where that is not the default."""
    if project == "default" or "project" in document.value:
        return document
    value, origins = {**document.value, "project": project}, {**document.origins, "/project": "auto"}
    return replace(document, value=value, origins=origins)


def _work_out(project: str, submitted: dict[str, Any], referred: Referred) -> Prepared:
    """Raises SpecError with every finding that can be made: of the document, else of what it refers to, else of the plan."""
    data, teacher = referred.one(FoundDataset), referred.one(FoundTeacher)
    resolved = resolve(referred.document, None if data is None else data.facts)
    if data is None:
        raise SpecError(referred.missing)
    spec, facts = resolved.spec, data.facts
    _refuse([*referred.missing, *(finding for each in referred.found for finding in each.check(spec, facts))])
    predicted = plan(spec, facts, teacher=None if teacher is None else teacher.spec)
    _refuse([finding for each in referred.found for finding in each.check_plan(spec, predicted)])
    warnings = (*resolved.warnings, *_tight(spec, predicted))
    return Prepared(spec, _columns(project, submitted, resolved, predicted), warnings, referred.found)


def _refuse(findings: Sequence[Finding]) -> None:
    if findings:
        raise SpecError(findings)


def _tight(spec: JobSpec, predicted: Plan) -> tuple[Finding, ...]:
    """A warning where the job reserves less memory than the plan predicts: jobs are placed by what they reserve."""
    reserved = spec.resources.memory_gb
    if reserved is None or predicted.fits is not False:
        return ()
    each = predicted.memory.total_bytes / spec.distributed.nodes / 2**30
    message = f"a node's part of the run is predicted to take {each:.2f} GiB, and {reserved:g} are reserved"
    hint = "reserve more or leave it out; `stoker plan` shows what would take less"
    return (Finding(pointer="/resources/memory_gb", code="reserves-too-little", message=message, hint=hint, severity="warning"),)


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
        "needs": needs(spec, predicted),
        "objective": {"key": spec.checkpoint.monitor, "mode": _mode(spec)},
        "progress": {"step": 0, "total_steps": predicted.model_dump(mode="json")["steps"]["total"]},
    }


def _mode(spec: JobSpec) -> str:
    """Direction of the monitored metric: what the spec says, else what the metric says; losses are minimized."""
    if spec.checkpoint.mode is not None:
        return spec.checkpoint.mode
    name = spec.checkpoint.monitor.partition("/")[2]
    for metric in spec.evaluation.metrics or ():
        if metric.key == name:
            return metric.mode
    return "min"
