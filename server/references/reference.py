"""One kind of thing that a document may refer to, and what became of such a reference."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from sqlmodel import Session

from server.auth import Principal
from server.references.pointer import Pointer
from stoker.document.document import Document
from stoker.document.strict_json import JsonValue
from stoker.errors import Finding
from stoker.facts import DatasetFacts
from stoker.plan import Plan
from stoker.protocol import DatasetFiles
from stoker.spec import JobSpec


@dataclass(frozen=True)
class Asked:
    """A document, who sent it, and the project that its job will belong to."""

    who: Principal
    project: str
    document: Document


@dataclass(frozen=True)
class Found:
    """The thing that a document refers to. A kind overrides what it needs; everything else does nothing."""

    digest: str
    """Identifies the thing: a document whose references give the same digests makes the same job."""
    lasting: ClassVar[bool] = True
    """Whether the same words mean the same thing until `moved` says otherwise. Else the prepared document is not remembered."""

    def pin(self, document: Document) -> Document:
        """The document with what was found written in: a version, a step, fields."""
        return document

    def check(self, spec: JobSpec, facts: DatasetFacts) -> Iterable[Finding]:
        """What of the thing does not fit the resolved spec."""
        return ()

    def check_plan(self, spec: JobSpec, plan: Plan) -> Iterable[Finding]:
        """What does not fit the run as it was planned."""
        return ()

    def moved(self, session: Session) -> bool:
        """Whether the same words mean another thing by now."""
        return False

    def confirm(self, session: Session) -> None:
        """Called in the transaction that stores the job. Raises Refusal when the thing was deleted since it was found."""

    def hold(self, session: Session, job_id: str, project: str) -> None:
        """Keep the thing until the job has ended. Called after `confirm`, in the same transaction, once the job is stored."""


@dataclass(frozen=True)
class Missing:
    """A reference to something that does not exist, or that cannot be used here."""

    findings: tuple[Finding, ...]
    alone: bool = False
    """Whether the rest of the document is not looked at: without the thing nothing can be said about it."""


class Reference(Protocol):
    """One kind of thing. `find` and `brings` are called only where a document has a value at `at`."""

    @property
    def at(self) -> Pointer: ...

    def find(self, session: Session, asked: Asked, named: JsonValue) -> Found | Missing | None:
        """What the value at `at` refers to; None where it refers to nothing of this kind or is malformed, which the grammar reports."""

    def brings(self, session: Session, project: str, named: JsonValue) -> Iterable[DatasetFiles]:
        """Files that the run reads. `named`: the value at `at` of a stored spec, so everything is pinned."""
