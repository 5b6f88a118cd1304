"""A Hugging Face directory that a document takes, found among the project's data sets and written out."""

from dataclasses import replace

from sqlmodel import Session

from server.datasets import store as datasets
from server.datasets.service import facts_of, parse_ref
from server.errors import spec_problem
from stoker.errors import Finding, SpecError
from stoker.spec.document import Document
from stoker.spec.opened import MODEL, WHOLE, Opened, opened, source_of


def without_directory(session: Session, project: str, document: Document) -> tuple[Document, Opened]:
    """The document with what it takes from a directory written out. Raises 422 with all that keeps it from being so."""
    ref = source_of(document.value)
    if ref is None:
        return document, Opened(document.value)
    name, version = parse_ref(ref)
    row = datasets.one(session, project, name, version)
    if row is None:
        hint = "`stoker datasets ls` shows what there is; `stoker datasets upload` adds one"
        raise _refused("hf-not-found", "this project has no such data set, or not in that version", hint)
    if row.facts["kind"] != "weights":
        raise _refused("hf-no-weights", f"this data set holds {row.facts['kind']}, not a Hugging Face directory", WHOLE)
    found = opened(document.value, facts_of(session, project, f"{name}@{row.version}"))
    if found.findings:
        raise spec_problem(SpecError(found.findings))
    return replace(document, value=found.value, origins={**document.origins, **found.origins}), found


def _refused(code: str, message: str, hint: str) -> Exception:
    return spec_problem(SpecError([Finding(pointer=f"{MODEL}/source", code=code, message=message, hint=hint)]))
