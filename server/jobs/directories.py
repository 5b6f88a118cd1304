"""Hugging Face directories that a document names, found among the project's data sets and written out."""

from dataclasses import replace

from sqlmodel import Session

from server.datasets import store as datasets
from server.datasets.service import facts_of, parse_ref
from server.errors import spec_problem
from stoker.errors import Finding, SpecError
from stoker.facts import DatasetFacts
from stoker.spec.document import Document
from stoker.spec.opened import WHOLE, Opened, opened, sources


def without_directories(session: Session, project: str, document: Document) -> tuple[Document, Opened]:
    """The document with what it takes from directories written out. Raises 422 with all that keeps it from being so."""
    named = sources(document.value)
    if not named:
        return _written(document, opened(document.value, {}))
    known: dict[str, DatasetFacts] = {}
    findings: list[Finding] = []
    for pointer, ref in named.items():
        name, version = parse_ref(ref)
        row = datasets.one(session, project, name, version)
        if row is None:
            hint = "`stoker datasets ls` shows what there is; `stoker datasets upload` adds one"
            message = "this project has no such data set, or not in that version"
            findings.append(Finding(pointer=pointer, code="hf-not-found", message=message, hint=hint))
        elif row.facts["kind"] != "weights":
            message = f"this data set holds {row.facts['kind']}, not a Hugging Face directory"
            findings.append(Finding(pointer=pointer, code="hf-no-weights", message=message, hint=WHOLE))
        else:
            known[pointer] = facts_of(session, project, f"{name}@{row.version}")
    if findings:
        raise spec_problem(SpecError(findings))
    return _written(document, opened(document.value, known))


def _written(document: Document, found: Opened) -> tuple[Document, Opened]:
    if found.findings:
        raise spec_problem(SpecError(found.findings))
    if not found.origins:
        return document, found
    return replace(document, value=found.value, origins={**document.origins, **found.origins}), found
