"""The teacher of a distillation: the job that a document names, bound to one of its checkpoints while it is prepared."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlmodel import Session

from server.auth import Principal
from server.checkpoints import service as checkpoints
from server.errors import Refusal
from server.jobs import store
from stoker.errors import Finding
from stoker.spec import JobSpec
from stoker.spec.problem import problem_of

AT = "/training/distillation/teacher"


@dataclass(frozen=True)
class Lesson:
    """What became of a document's teacher."""

    value: dict[str, Any]
    """The document, its teacher's checkpoint a step."""
    findings: tuple[Finding, ...] = ()
    spec: JobSpec | None = None
    """The teacher's."""


def bound(session: Session, who: Principal, project: str, value: dict[str, Any]) -> Lesson:
    """The document as it is where it names no teacher that could exist, which the grammar reports."""
    teacher = _named(value)
    if teacher is None:
        return Lesson(value)
    try:
        job = store.whole_job(session, who, teacher["job"])
    except Refusal:
        job = None
    if job is None or job.project != project:
        return _refused(value, "job", "teacher-not-found", "this project has no such job", "`stoker ls` shows what there is")
    if job.state != "succeeded":
        message = f"the job is {job.state}, and only one that has succeeded teaches"
        return _refused(value, "job", "teacher-not-finished", message, "wait for it, or name another")
    try:
        row = checkpoints.readable(checkpoints.find(session, job, str(teacher.get("checkpoint", "best"))))
    except Refusal as refusal:
        hint = f"`stoker checkpoints ls {teacher['job']}` shows which it has"
        return _refused(value, "checkpoint", "teacher-checkpoint-missing", _reason(refusal), hint)
    return Lesson(_with_step(value, row.step), (), JobSpec.model_validate_json(job.spec))


def _named(value: dict[str, Any]) -> dict[str, Any] | None:
    found: Any = value
    for key in ("training", "distillation", "teacher"):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("job"), str) or len(found["job"]) > 100:
        return None
    which = found.get("checkpoint", "best")
    known = which in ("best", "last") if isinstance(which, str) else type(which) is int and 0 <= which < 2**31
    return found if known else None


def _reason(refusal: Refusal) -> str:
    match refusal.code:
        case "checkpoint_expired":
            return "that checkpoint was let go, as the teacher's checkpoint policy says"
        case "checkpoint_corrupt":
            return "that checkpoint was found damaged"
        case _:
            return "the job has no such checkpoint"


def _refused(value: dict[str, Any], key: str, code: str, message: str, hint: str) -> Lesson:
    return Lesson(value, (Finding(pointer=f"{AT}/{key}", code=code, message=message, hint=hint),))


def _with_step(value: dict[str, Any], step: int) -> dict[str, Any]:
    training = value["training"]
    distillation = training["distillation"]
    teacher = {**distillation["teacher"], "checkpoint": step}
    return {**value, "training": {**training, "distillation": {**distillation, "teacher": teacher}}}


def misfits(student: JobSpec, teacher: JobSpec) -> list[Finding]:
    """What of the teacher does not fit, as far as the specs alone say; the run compares what both learned of their data."""
    ours, theirs = problem_of(student, None), problem_of(teacher, None)
    said = [
        (student.task.type, teacher.task.type, "task"),
        (ours.outputs, theirs.outputs, "number of classes or tokens"),
        (ours.input_shape, theirs.input_shape, "shape of a sample"),
        (_tokens(student), _tokens(teacher), "tokenizer"),
    ]
    return [
        Finding(
            pointer=f"{AT}/job",
            code="teacher-misfit",
            message=f"the teacher's {what} is {_shown(other)}, here it is {_shown(own)}",
            hint="teach with a job whose data and task are the same",
        )
        for own, other, what in said
        if own is not None and other is not None and own != other
    ]


def _tokens(spec: JobSpec) -> str | None:
    return None if spec.data.tokenizer is None else spec.data.tokenizer.model_dump_json()


def _shown(value: object) -> str:
    return json.dumps(value) if isinstance(value, int) else str(value)


def teacher_of(session: Session, spec: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Files of the checkpoint that teaches a stored spec's job; None without a teacher, empty when it is no longer there."""
    teacher = _named(spec)
    if teacher is None:
        return None
    job = session.execute(select(store.JOBS).where(store.JOBS.c.id == teacher["job"])).one_or_none()
    try:
        return None if job is None else checkpoints.readable(checkpoints.find(session, job, str(teacher["checkpoint"]))).files
    except Refusal:
        return []
