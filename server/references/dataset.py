"""The data set that a job reads, by name or by name and version."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple, TypeGuard

from sqlalchemy import bindparam, select
from sqlmodel import Session

from server.datasets.service import facts_of, files_of, parse_ref
from server.datasets.tables import Dataset
from server.references.pointer import Pointer
from server.references.reference import Asked, Found, Missing
from stoker.document.strict_json import JsonValue
from stoker.errors import Finding
from stoker.facts import DatasetFacts
from stoker.protocol import DatasetFiles

MOST_CHARACTERS = 200
"""Longest name and version in a document."""
_TABLE = Dataset.metadata.tables["datasets"]
_NEWEST = (
    select(_TABLE.c.id, _TABLE.c.version)
    .where(_TABLE.c.project == bindparam("project"), _TABLE.c.name == bindparam("name"))
    .order_by(_TABLE.c.version.desc())
    .limit(1)
)
_EXACT = _NEWEST.where(_TABLE.c.version == bindparam("version"))
_facts: OrderedDict[str, DatasetFacts] = OrderedDict()
"""By the id of a data set's version, which never changes."""
_facts_lock = Lock()
_REMEMBERED = 256


class _Version(NamedTuple):
    """A version of a data set: the id of its row and its number."""

    id: str
    version: int


@dataclass(frozen=True)
class FoundDataset(Found):
    """A version of a data set. `resolve` writes it into the spec, because the version that it takes is `auto` there."""

    project: str
    name: str
    asked: int | None
    """The version that the document names; None: the newest."""
    id: str
    """The id of the version's row."""
    facts: DatasetFacts = field(compare=False, repr=False)

    def moved(self, session: Session) -> bool:
        """Whether the name means a newer version by now."""
        row = _version_of(session, self.project, self.name, self.asked)
        return row is None or row.id != self.id


class DatasetReference:
    at = Pointer("/data/source/dataset")

    def find(self, session: Session, asked: Asked, named: JsonValue) -> FoundDataset | Missing | None:
        if not is_name(named):
            return None
        name, version = parse_ref(named)
        row = _version_of(session, asked.project, name, version)
        if row is None:
            return not_found(self.at.text, "dataset-not-found", named)
        facts = _facts_of(session, asked.project, name, row)
        return FoundDataset(f"{row.id}:{version}:{facts.digest}", asked.project, name, version, row.id, facts)

    def brings(self, session: Session, project: str, named: JsonValue) -> Iterable[DatasetFiles]:
        """Raises 404."""
        return (DatasetFiles(ref=named, files=files_of(session, project, named)),)


def is_name(named: JsonValue) -> TypeGuard[str]:
    """Whether a value of a document may name a data set."""
    return isinstance(named, str) and len(named) <= MOST_CHARACTERS


def not_found(pointer: str, code: str, ref: str) -> Missing:
    """The answer to a reference to a data set that the project does not have."""
    hint = "`stoker datasets ls` lists the data sets; `stoker datasets upload` adds one"
    return Missing((Finding(pointer=pointer, code=code, message=f"this project has no data set {ref}", hint=hint),))


def _version_of(session: Session, project: str, name: str, version: int | None) -> _Version | None:
    """By default the newest. Documents that are prepared together ask once."""
    known: dict[tuple[str, str, int | None], _Version | None] = session.info.setdefault("dataset_versions", {})
    key = (project, name, version)
    if key not in known:
        wanted = {"project": project, "name": name, "version": version}
        row = session.connection().execute(_NEWEST if version is None else _EXACT, wanted).first()
        known[key] = None if row is None else _Version(row.id, row.version)
    return known[key]


def _facts_of(session: Session, project: str, name: str, row: _Version) -> DatasetFacts:
    with _facts_lock:
        known = _facts.get(row.id)
    if known is None:
        known = facts_of(session, project, f"{name}@{row.version}")
        with _facts_lock:
            _facts[row.id] = known
            if len(_facts) > _REMEMBERED:
                _facts.popitem(last=False)
    return known
