"""The teacher of a distillation: another job's model, at one of its checkpoints."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlmodel import Session

from server.errors import Refusal
from server.references.checkpoint import checkpoint_of, files_of, is_named, job_of
from server.references.pointer import Pointer
from server.references.reference import Asked, Found, Missing
from stoker.document.document import Document
from stoker.document.strict_json import JsonValue
from stoker.errors import Finding
from stoker.facts import DatasetFacts
from stoker.protocol import DatasetFiles
from stoker.spec import JobSpec
from stoker.spec.derived.problem import problem_of

AT = Pointer("/training/distillation/teacher")
FOLDER = "teacher"
"""Where the checkpoint lies in a workspace, next to the data sets."""


@dataclass(frozen=True)
class FoundTeacher(Found):
    """Lasting, for a job that succeeded saves no more checkpoints and lets none go."""

    step: int
    spec: JobSpec = field(compare=False, repr=False)

    def pin(self, document: Document) -> Document:
        return AT.updated(document, {"checkpoint": self.step})

    def check(self, spec: JobSpec, facts: DatasetFacts) -> Iterable[Finding]:
        """As far as the specs alone say; the run compares what both learned of their data."""
        for what, own, other in _compared(spec, self.spec):
            if own is not None and other is not None and own != other:
                yield Finding(
                    pointer=f"{AT.text}/job",
                    code="teacher-misfit",
                    message=f"the teacher's {what} is {_shown(other)}, here it is {_shown(own)}",
                    hint="name a job with the same data and task",
                )


class TeacherReference:
    at = AT

    def find(self, session: Session, asked: Asked, named: JsonValue) -> FoundTeacher | Missing | None:
        if not is_named(named) or not _is_checkpoint(which := named.get("checkpoint", "best")):
            return None
        job = job_of(session, asked, named["job"])
        if job is None:
            return _missing("job", "teacher-not-found", "this project has no such job", "`stoker ls` lists the jobs")
        if job.state != "succeeded":
            hint = "wait until it has succeeded, or name another job"
            return _missing("job", "teacher-not-finished", f"the job is {job.state}; a teacher must have succeeded", hint)
        try:
            row = checkpoint_of(session, job, str(which))
        except Refusal as refusal:
            hint = f"`stoker checkpoints {named['job']}` lists its checkpoints"
            return _missing("checkpoint", "teacher-checkpoint-missing", _reason(refusal), hint)
        return FoundTeacher(row.id, row.step, JobSpec.model_validate_json(job.spec))

    def brings(self, session: Session, project: str, named: JsonValue) -> Iterable[DatasetFiles]:
        files = files_of(session, named["job"], named["checkpoint"])
        return (DatasetFiles(ref=FOLDER, files=files),) if files else ()


def _is_checkpoint(which: object) -> bool:
    return which in ("best", "last") if isinstance(which, str) else type(which) is int and 0 <= which < 2**31


def _missing(key: str, code: str, message: str, hint: str) -> Missing:
    return Missing((Finding(pointer=f"{AT.text}/{key}", code=code, message=message, hint=hint),))


def _reason(refusal: Refusal) -> str:
    match refusal.code:
        case "checkpoint_expired":
            return "that checkpoint was deleted, as the teacher's checkpoint policy says"
        case "checkpoint_corrupt":
            return "that checkpoint is damaged"
        case _:
            return "the job has no such checkpoint"


def _compared(student: JobSpec, teacher: JobSpec) -> Iterable[tuple[str, object, object]]:
    ours, theirs = problem_of(student, None), problem_of(teacher, None)
    yield "task", student.task.type, teacher.task.type
    yield "number of classes or tokens", ours.outputs, theirs.outputs
    yield "shape of a sample", ours.input_shape, theirs.input_shape
    yield "tokenizer", _tokenizer(student), _tokenizer(teacher)


def _tokenizer(spec: JobSpec) -> str | None:
    return None if spec.data.tokenizer is None else spec.data.tokenizer.model_dump_json()


def _shown(value: object) -> str:
    return json.dumps(value) if isinstance(value, int) else str(value)
