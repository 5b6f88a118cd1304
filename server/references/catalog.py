"""Every kind of thing that a document may refer to, and what is done with all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from sqlmodel import Session

from server.references.continued import ContinuedReference
from server.references.dataset import DatasetReference
from server.references.directory import DirectoryReference
from server.references.pointer import Fields
from server.references.pretrained import PretrainedReference
from server.references.reference import Asked, Found, Missing, Reference
from server.references.teacher import TeacherReference
from server.references.tokenizer import TokenizerReference
from server.references.warm import WarmReference
from stoker.document.document import Document
from stoker.errors import Finding, SpecError
from stoker.protocol import DatasetFiles

REFERENCES: tuple[Reference, ...] = (
    DirectoryReference(),
    DatasetReference(),
    TeacherReference(),
    WarmReference(),
    PretrainedReference(),
    TokenizerReference(),
    ContinuedReference(),
)
"""In this order: a directory is written out as weights and a tokenizer, which are found after it; whole data sets come before
what brings some of their files."""

F = TypeVar("F", bound=Found)


@dataclass(frozen=True)
class Referred:
    """All that a document refers to."""

    document: Document
    """With what was found written in."""
    found: tuple[Found, ...]
    missing: tuple[Finding, ...]

    def one(self, kind: type[F]) -> F | None:
        """The thing of one kind; a document has at most one."""
        return next((each for each in self.found if isinstance(each, kind)), None)


def find_all(session: Session, asked: Asked, references: Sequence[Reference] = REFERENCES) -> Referred:
    """Look for everything that a document refers to. Raises SpecError where nothing can be said without what is missing."""
    found: list[Found] = []
    missing: list[Finding] = []
    for reference in references:
        named = reference.at.read(asked.document.value)
        match None if named is None else reference.find(session, asked, named):
            case Missing() as gone if gone.alone:
                raise SpecError(gone.findings)
            case Missing() as gone:
                missing += gone.findings
            case Found() as thing:
                found.append(thing)
                if (pinned := thing.pin(asked.document)) is not asked.document:
                    asked = replace(asked, document=pinned)
            case None:
                pass
    return Referred(asked.document, tuple(found), tuple(missing))


def files_of(
    session: Session, project: str, spec: Fields, references: Sequence[Reference] = REFERENCES
) -> tuple[DatasetFiles, ...]:
    """What the run of a stored spec reads, the data set first. What two references name comes once, as the first brings it."""
    files: dict[str, DatasetFiles] = {}
    for reference in references:
        named = reference.at.read(spec)
        for brought in () if named is None else reference.brings(session, project, named):
            files.setdefault(brought.ref, brought)
    return tuple(files.values())
