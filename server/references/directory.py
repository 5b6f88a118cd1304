"""A Hugging Face directory that a document takes its model from: `model: {type: hf, source: gpt2}`."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar

from sqlmodel import Session

from server.datasets import store as datasets
from server.datasets.service import facts_of, parse_ref
from server.references.dataset import not_found
from server.references.pointer import Pointer
from server.references.reference import Asked, Found, Missing
from stoker.document.document import Document
from stoker.document.opened import WHOLE, Opened, opened, source_of, unread
from stoker.document.strict_json import JsonValue
from stoker.errors import Finding
from stoker.facts import DatasetFacts
from stoker.protocol import DatasetFiles
from stoker.spec import JobSpec
from stoker.spec.derived.problem import problem_of


@dataclass(frozen=True)
class FoundDirectory(Found):
    """A directory, written out in the document: the fields of its model, and its weights and tokenizer as references."""

    lasting: ClassVar[bool] = False
    opened: Opened = field(compare=False, repr=False)

    def pin(self, document: Document) -> Document:
        return replace(document, value=self.opened.value, origins={**document.origins, **self.opened.origins})

    def check(self, spec: JobSpec, facts: DatasetFacts) -> Iterable[Finding]:
        return unread(self.opened, problem_of(spec, facts).vocab_size)


class DirectoryReference:
    """Brings no files: the start and the tokenizer that it is written out as do."""

    at = Pointer("/model")

    def find(self, session: Session, asked: Asked, named: JsonValue) -> FoundDirectory | Missing | None:
        """Nothing can be said about a document whose model is not known."""
        ref = source_of(asked.document.value)
        if ref is None:
            return None
        name, version = parse_ref(ref)
        row = datasets.one(session, asked.project, name, version)
        if row is None:
            return replace(not_found(f"{self.at.text}/source", "hf-not-found", ref), alone=True)
        if row.facts["kind"] != "weights":
            message = f"data set {ref} holds {row.facts['kind']}, not a Hugging Face directory"
            return Missing(
                (Finding(pointer=f"{self.at.text}/source", code="hf-no-weights", message=message, hint=WHOLE),), alone=True
            )
        found = opened(asked.document.value, facts_of(session, asked.project, f"{name}@{row.version}"))
        return Missing(found.findings, alone=True) if found.findings else FoundDirectory(row.digest, found)

    def brings(self, session: Session, project: str, named: JsonValue) -> Iterable[DatasetFiles]:
        return ()
