"""A document that was prepared: resolved, planned, and ready to be stored as a job."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock
from types import SimpleNamespace
from typing import Any

import orjson
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from server.auth import Principal
from server.db import Encoded, utcnow
from server.errors import Refusal, problem, spec_problem
from server.jobs import store
from server.jobs.forecast import FRESH, Forecast, Forecasts, encoded
from server.jobs.views import whole_view
from server.references.catalog import Referred, find_all
from server.references.dataset import FoundDataset
from server.references.reference import Asked, Found
from server.references.teacher import FoundTeacher
from stoker.document.document import Document
from stoker.document.load import compose
from stoker.document.resolve import Resolved
from stoker.document.resolver import Resolver
from stoker.errors import Finding, SpecError
from stoker.spec import JobSpec


@dataclass(frozen=True)
class Prepared:
    """Everything in the row of a job that its document decides."""

    spec: JobSpec
    columns: dict[str, Any]
    warnings: tuple[Finding, ...]
    found: tuple[Found, ...] = ()
    """What it refers to."""
    texts: dict[str, Encoded] = field(default_factory=dict)
    """Columns that are JSON, as text, where that is known already."""
    outlook: dict[str, Any] | None = None
    """The view that the plan makes of a new job; None: made from the columns."""

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
        return _FRESH_TEXT | {k: encoded(v) for k, v in self.columns.items() if k not in self.texts} | self.texts

    @cached_property
    def view(self) -> dict[str, Any]:
        """The view of a new job as JSON, without id and times."""
        if self.outlook is None:
            return whole_view(SimpleNamespace(**FRESH | self.columns | _UNBORN)).model_dump(mode="json")
        return self.outlook | {name: self.columns[name] for name in _CALLED}


_FRESH_TEXT = {name: encoded(value) for name, value in FRESH.items()}
_UNBORN = {"id": "", "created_at": utcnow(), "queued_at": utcnow()}
_CALLED = ("name", "project", "priority", "labels", "spec_digest")
"""What of a view the plan does not decide."""

Key = tuple[str, ...]
"""Project, digest of the document, digests of what it refers to."""
_CACHED = 256


class Preparer:
    """Prepares documents, and works out only what differs from documents before. For several threads."""

    def __init__(self) -> None:
        self._prepared: OrderedDict[Key, Prepared] = OrderedDict()
        self._resolver, self._forecasts = Resolver(), Forecasts()
        self._lock = Lock()
        """Held to use what is remembered. Two threads that compute take the interpreter from each other anyway."""

    def prepare_all(self, session: Session, asked: Sequence[Asked]) -> list[Prepared | Exception]:
        """Each document prepared, or why it is refused; for `Database.read_together`.

        Raises what the database says: after it PostgreSQL answers nothing more to the documents that share the transaction.
        """
        return [self._tried(session, each) for each in asked]

    def _tried(self, session: Session, asked: Asked) -> Prepared | Exception:
        try:
            return self.prepare(session, asked.who, asked.project, asked.document)
        except SQLAlchemyError:
            raise
        except Exception as error:
            return error

    def prepare(self, session: Session, who: Principal, project: str, document: Document) -> Prepared:
        """Resolve and plan a document for a project.

        The digests of what it refers to are part of the key under which the result is remembered, so a new version of its
        data set gives a new answer. Raises 422 with every finding, 403 `wrong_project`.
        """
        try:
            document = _composed(session, who, document)
            project = _project(who, project, document.value)
            referred = find_all(session, Asked(who, project, _in_project(document, project)))
            with self._lock:
                if referred.missing or not all(each.lasting for each in referred.found):
                    return self._work_out(project, document.value, referred)
                key = _key(project, document, referred.found)
                return self._prepared.get(key) or self._remember(key, self._work_out(project, document.value, referred))
        except SpecError as error:
            raise spec_problem(error) from error

    def _remember(self, key: Key, prepared: Prepared) -> Prepared:
        self._prepared[key] = prepared
        if len(self._prepared) > _CACHED:
            self._prepared.popitem(last=False)
        return prepared

    def _work_out(self, project: str, submitted: dict[str, Any], referred: Referred) -> Prepared:
        """Raises SpecError with every finding that can be made: of the document, else of what it refers to, else of the plan."""
        data, teacher = referred.one(FoundDataset), referred.one(FoundTeacher)
        resolved = self._resolver.resolve(referred.document, None if data is None else data.facts)
        if data is None:
            raise SpecError(referred.missing)
        spec, facts = resolved.spec, data.facts
        _refuse([*referred.missing, *(finding for each in referred.found for finding in each.check(spec, facts))])
        forecast = self._forecasts.of(resolved, facts, None if teacher is None else teacher.spec)
        _refuse([finding for each in referred.found for finding in each.check_plan(spec, forecast.plan)])
        return _prepared(project, submitted, resolved, forecast, referred.found)


def _key(project: str, document: Document, found: Sequence[Found]) -> Key:
    text = orjson.dumps(document.value, option=orjson.OPT_SORT_KEYS)
    text += orjson.dumps(dict(document.origins), option=orjson.OPT_SORT_KEYS)
    return (project, hashlib.sha256(text).hexdigest(), *(each.digest for each in found))


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


def _refuse(findings: Sequence[Finding]) -> None:
    if findings:
        raise SpecError(findings)


def _prepared(
    project: str, submitted: dict[str, Any], resolved: Resolved, forecast: Forecast, found: tuple[Found, ...]
) -> Prepared:
    spec = resolved.spec
    columns = {
        "project": project,
        "name": spec.name,
        "kind": FRESH["kind"],
        "priority": spec.priority,
        "labels": dict(spec.labels),
        "submitted": json.dumps(submitted, ensure_ascii=False, separators=(",", ":")),
        "spec": resolved.canonical,
        "origins": resolved.origins,
        "spec_digest": resolved.digest,
        **forecast.columns,
    }
    texts = {**forecast.texts, "origins": Encoded(resolved.origins_text)}
    return Prepared(spec, columns, (*resolved.warnings, *forecast.warnings), found, texts, forecast.view)
