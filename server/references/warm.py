"""The checkpoint of another job whose weights a job starts from: `start: {type: warm}`."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from sqlmodel import Session

from server.checkpoints.service import hold
from server.checkpoints.tables import Checkpoint
from server.errors import Refusal, spec_problem
from server.references.checkpoint import checkpoint_of, files_of, is_named, job_of
from server.references.pointer import Pointer
from server.references.reference import Asked, Found, Missing
from stoker.document.document import Document
from stoker.document.strict_json import JsonValue
from stoker.errors import Finding, SpecError
from stoker.facts import DatasetFacts
from stoker.protocol import DatasetFiles
from stoker.spec import JobSpec
from stoker.spec.derived.problem import problem_of

AT = Pointer("/initialization/start")
CHECKPOINT = Pointer(f"{AT.text}/checkpoint")
FOLDER = "start"
"""Where the checkpoint lies in a workspace, next to the data sets."""
GONE = "the job does not have this checkpoint; it may have been deleted"


@dataclass(frozen=True)
class FoundStart(Found):
    """Its maker's retention policy may delete it, so it is held until the new job has ended."""

    lasting: ClassVar[bool] = False
    id: str
    """The id of the checkpoint's row."""
    step: int
    spec: JobSpec = field(compare=False, repr=False)
    """The spec of the job that saved it."""

    def pin(self, document: Document) -> Document:
        return CHECKPOINT.updated(document, {"checkpoint": self.step})

    def check(self, spec: JobSpec, facts: DatasetFacts) -> Iterable[Finding]:
        """As far as the specs alone say; the run compares each weight."""
        start = spec.initialization.start
        if start.type != "warm" or not start.strict or start.exclude_keys:
            return
        for what, ours, theirs, hint in _compared(spec, self.spec, head=start.reset_head):
            if ours != theirs:
                message = f"that job's {what} is {_shown(theirs)}, here it is {_shown(ours)}"
                yield Finding(pointer=f"{CHECKPOINT.text}/job", code="start-misfit", message=message, hint=hint)

    def confirm(self, session: Session) -> None:
        row = session.get(Checkpoint, self.id)
        if row is None or row.state != "available":
            raise spec_problem(SpecError(_missing("checkpoint", "start-checkpoint-missing", GONE, "name another").findings))

    def hold(self, session: Session, job_id: str, project: str) -> None:
        hold(session, job_id, self.id)


class WarmReference:
    at = AT

    def find(self, session: Session, asked: Asked, named: JsonValue) -> FoundStart | Missing | None:
        ref = named.get("checkpoint") if isinstance(named, dict) and named.get("type") == "warm" else None
        if not is_named(ref) or not _is_checkpoint(which := ref.get("checkpoint", "last")):
            return None
        job = job_of(session, asked, ref["job"])
        if job is None:
            return _missing("job", "start-not-found", "this project has no such job", "`stoker ls` lists the jobs")
        try:
            row = checkpoint_of(session, job, str(which))
        except Refusal:
            hint = f"`stoker checkpoints {ref['job']}` lists its checkpoints"
            return _missing("checkpoint", "start-checkpoint-missing", GONE, hint)
        return FoundStart(row.id, row.id, row.step, JobSpec.model_validate_json(job.spec))

    def brings(self, session: Session, project: str, named: JsonValue) -> Iterable[DatasetFiles]:
        if named["type"] != "warm":
            return ()
        files = files_of(session, named["checkpoint"]["job"], named["checkpoint"]["checkpoint"])
        return (DatasetFiles(ref=FOLDER, files=files),) if files else ()


def _is_checkpoint(which: object) -> bool:
    return which in ("best", "last", "final") if isinstance(which, str) else type(which) is int and 0 < which < 2**31


def _missing(key: str, code: str, message: str, hint: str) -> Missing:
    return Missing((Finding(pointer=f"{CHECKPOINT.text}/{key}", code=code, message=message, hint=hint),))


def _compared(spec: JobSpec, source: JobSpec, *, head: bool) -> Iterator[tuple[str, object, object, str]]:
    yield "model", spec.model.type, source.model.type, "use the same model, or take some of the weights with strict: false"
    ours, theirs = problem_of(spec, None), problem_of(source, None)
    if not head and ours.outputs is not None and theirs.outputs is not None:
        yield "number of outputs", ours.outputs, theirs.outputs, "set reset_head to true"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
