"""The checkpoint of another job that a job continues from: `checkpoint.resume_from`."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from sqlmodel import Session

from server.checkpoints import service as checkpoints
from server.checkpoints.tables import Checkpoint
from server.errors import Refusal, spec_problem
from server.references.checkpoint import checkpoint_of, job_of
from server.references.pointer import Pointer
from server.references.reference import Asked, Found, Missing
from stoker.document.document import Document
from stoker.document.strict_json import JsonValue
from stoker.errors import Finding, SpecError
from stoker.plan import Plan
from stoker.protocol import DatasetFiles
from stoker.spec import JobSpec
from stoker.spec.derived.continued import differences

AT = Pointer("/checkpoint/resume_from")


@dataclass(frozen=True)
class FoundCheckpoint(Found):
    """The new job gets a manifest of the same files, so it does not depend on the job that made them."""

    lasting: ClassVar[bool] = False
    id: str
    """The id of the checkpoint's row."""
    step: int
    spec: JobSpec = field(compare=False, repr=False)
    """The spec of the job that saved it."""

    def pin(self, document: Document) -> Document:
        return AT.updated(document, {"checkpoint": self.step})

    def check_plan(self, spec: JobSpec, plan: Plan) -> Iterable[Finding]:
        yield from differences(self.spec, spec)
        if plan.steps.total is not None and plan.steps.total <= self.step:
            message = f"the checkpoint is of step {self.step}, and the run would end at {plan.steps.total}"
            yield Finding(pointer="/training", code="continued-too-short", message=message, hint="train longer")

    def confirm(self, session: Session) -> None:
        """Raises 404 or 409 when the checkpoint was deleted or found damaged."""
        row = session.get(Checkpoint, self.id)
        if row is None:
            raise spec_problem(SpecError(_missing("checkpoint", "the job has no such checkpoint any more").findings))
        checkpoints.readable(row)

    def hold(self, session: Session, job_id: str, project: str) -> None:
        checkpoints.give(session, job_id, project, self.id)


class ContinuedReference:
    """Brings no files: the new job's first checkpoint is offered to its attempts like those that it saves."""

    at = AT

    def find(self, session: Session, asked: Asked, named: JsonValue) -> FoundCheckpoint | Missing | None:
        which = named.get("checkpoint", "last") if isinstance(named, dict) and isinstance(named.get("job"), str) else None
        if not isinstance(which, str | int) or isinstance(which, bool):
            return None
        job = job_of(session, asked, named["job"])
        if job is None:
            return _missing("job", "this project has no such job")
        try:
            row = checkpoint_of(session, job, str(which)) if _is_checkpoint(str(which)) else None
        except Refusal:
            row = None
        if row is None:
            return _missing("checkpoint", "the job does not have this checkpoint; it may have been deleted")
        return FoundCheckpoint(row.id, row.id, row.step, JobSpec.model_validate_json(job.spec))

    def brings(self, session: Session, project: str, named: JsonValue) -> Iterable[DatasetFiles]:
        return ()


def _is_checkpoint(which: str) -> bool:
    return which in ("last", "best", "final") or (which.isascii() and which.isdigit() and len(which) < 17)


def _missing(key: str, message: str) -> Missing:
    hint = "`stoker checkpoints JOB` lists its checkpoints"
    finding = Finding(pointer=f"{AT.text}/{key}", code="checkpoint-not-found", message=message, hint=hint)
    return Missing((finding,), alone=True)
