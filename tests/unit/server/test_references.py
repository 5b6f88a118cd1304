"""What a document refers to: found in order, written in, and handed over once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from server.auth import Principal
from server.checkpoints.tables import Checkpoint
from server.errors import Refusal
from server.references.catalog import REFERENCES, files_of, find_all
from server.references.continued import FoundCheckpoint
from server.references.dataset import DatasetReference, FoundDataset
from server.references.pointer import Pointer
from server.references.reference import Asked, Found, Missing
from server.references.teacher import FoundTeacher
from server.references.warm import FoundStart
from stoker.document.document import Document
from stoker.errors import Finding, SpecError
from stoker.protocol import BlobFile, DatasetFiles

WHO = Principal("key", "key", None, frozenset({"submit"}))
NO_SESSION: Any = None
"""Any use of it fails."""


def asked(value: dict[str, Any]) -> Asked:
    return Asked(WHO, "default", Document(value))


@dataclass(frozen=True)
class FoundNumber(Found):
    at: Pointer

    def pin(self, document: Document) -> Document:
        return self.at.updated(document, {"version": int(self.digest)})


@dataclass(frozen=True)
class Numbered:
    """Finds what is named by a number, and nothing that is negative."""

    at: Pointer
    alone: bool = False
    files: tuple[str, ...] = ()

    def find(self, session: Any, asked: Asked, named: Any) -> Found | Missing | None:
        number = named["of"]
        if number < 0:
            return Missing((Finding(pointer=self.at.text, code="negative", message=str(number)),), alone=self.alone)
        return FoundNumber(str(number), self.at) if number else None

    def brings(self, session: Any, project: str, named: Any) -> Iterable[DatasetFiles]:
        return (DatasetFiles(ref=named["ref"], files=tuple(BlobFile(path=p, bytes=1, sha256="0") for p in self.files)),)


FIRST, SECOND = Numbered(Pointer("/a/first")), Numbered(Pointer("/second"))


def test_a_pointer_reads_and_copies_only_the_way_to_it() -> None:
    value = {"a": {"b~/c": {"x": 1}, "other": {"y": 2}}}
    pointer = Pointer("/a/b~0~1c")
    assert pointer.read(value) == {"x": 1}
    assert Pointer("/a/b/c").read(value) is None
    assert Pointer("/a/other/y/z").read(value) is None
    changed = pointer.updated(Document(value), {"z": 3}).value
    assert changed == {"a": {"b~/c": {"x": 1, "z": 3}, "other": {"y": 2}}}
    assert value == {"a": {"b~/c": {"x": 1}, "other": {"y": 2}}}
    assert changed["a"]["other"] is value["a"]["other"]


def test_what_is_found_is_written_in_for_the_next() -> None:
    referred = find_all(NO_SESSION, asked({"a": {"first": {"of": 1}}, "second": {"of": 2}}), (FIRST, SECOND))
    assert referred.document.value == {"a": {"first": {"of": 1, "version": 1}}, "second": {"of": 2, "version": 2}}
    assert [each.digest for each in referred.found] == ["1", "2"]
    assert referred.missing == ()
    assert referred.one(FoundTeacher) is None


def test_what_is_missing_is_gathered_unless_nothing_can_be_said_without_it() -> None:
    both = asked({"a": {"first": {"of": -1}}, "second": {"of": -2}})
    assert [each.pointer for each in find_all(NO_SESSION, both, (FIRST, SECOND)).missing] == ["/a/first", "/second"]
    with pytest.raises(SpecError) as refused:
        find_all(NO_SESSION, both, (FIRST, Numbered(SECOND.at, alone=True)))
    assert [each.pointer for each in refused.value.findings] == ["/second"]


def test_a_document_that_refers_to_nothing_is_neither_copied_nor_looked_up() -> None:
    plain = {
        "data": {"source": {"type": "csv", "dataset": "digits"}, "tokenizer": {"type": "char"}},
        "model": {"type": "mlp"},
        "initialization": {"start": {"type": "cold"}},
        "training": {"distillation": None},
        "checkpoint": {"resume_from": None},
    }
    others = [each for each in REFERENCES if not isinstance(each, DatasetReference)]
    given = asked(plain)
    referred = find_all(NO_SESSION, given, others)
    assert referred.document is given.document
    assert referred.found == referred.missing == ()


def test_malformed_references_are_left_to_the_grammar() -> None:
    for wrong in (5, "text", [], {}, {"type": "warm"}, {"type": "file", "source": 5}, {"type": "hf", "source": []}, {"job": 5}):
        value = {
            "data": {"source": {"dataset": {}}, "tokenizer": wrong},
            "model": wrong,
            "initialization": {"start": wrong},
            "training": {"distillation": {"teacher": wrong}},
            "checkpoint": {"resume_from": wrong},
        }
        referred = find_all(NO_SESSION, asked(value))
        assert referred.found == referred.missing == (), wrong


def test_files_of_one_name_come_once_as_the_first_brings_them() -> None:
    spec = {"a": {"first": {"of": 1, "ref": "w@1"}}, "second": {"of": 2, "ref": "w@1"}, "third": {"ref": "t@2"}}
    references = (
        Numbered(FIRST.at, files=("all", "of", "them")),
        Numbered(SECOND.at, files=("all",)),
        Numbered(Pointer("/third"), files=("other",)),
        Numbered(Pointer("/nowhere"), files=("none",)),
    )
    brought = files_of(NO_SESSION, "default", spec, references)
    assert [(each.ref, [file.path for file in each.files]) for each in brought] == [
        ("w@1", ["all", "of", "them"]),
        ("t@2", ["other"]),
    ]


def test_remembered_documents_compare_what_they_refer_to_by_its_version() -> None:
    facts: Any = {"not": "hashable"}
    one, same = (FoundDataset("d", "default", "digits", None, "dst_1", facts) for _ in range(2))
    assert {one} == {same}
    assert len({one, FoundDataset("d", "default", "digits", 1, "dst_1", facts)}) == 2


class Stored:
    """A session in which a checkpoint has a state, or does not exist."""

    def __init__(self, state: str | None) -> None:
        self._row = None if state is None else Checkpoint(id="ckp_1", state=state)

    def get(self, _: object, checkpoint_id: str) -> Checkpoint | None:
        return self._row if checkpoint_id == "ckp_1" else None


@pytest.mark.parametrize(
    ("state", "start", "continued"),
    [
        ("available", None, None),
        (None, (422, "spec_invalid"), (422, "spec_invalid")),
        ("expired", (422, "spec_invalid"), (404, "checkpoint_expired")),
        ("corrupt", (422, "spec_invalid"), (409, "checkpoint_corrupt")),
    ],
)
def test_a_checkpoint_that_was_deleted_since_it_was_found_is_refused_when_the_job_is_stored(
    state: str | None, start: tuple[int, str] | None, continued: tuple[int, str] | None
) -> None:
    session: Any = Stored(state)
    spec: Any = None
    for found, answer in ((FoundStart("d", "ckp_1", 4, spec), start), (FoundCheckpoint("d", "ckp_1", 4, spec), continued)):
        try:
            found.confirm(session)
            refused = None
        except Refusal as refusal:
            refused = (refusal.status, refusal.code)
        assert refused == answer
