"""Jobs that go on from another job's checkpoint: which one it is, whether it fits, and that the new job has it for itself."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sqlmodel import Session

from server.auth import Principal
from server.blobs import service as blobs
from server.checkpoints import service as checkpoints
from server.checkpoints.tables import Checkpoint
from server.db import new_id, utcnow
from server.errors import Refusal, spec_problem
from server.jobs import store
from stoker.errors import Finding, SpecError
from stoker.plan import Plan
from stoker.spec import JobSpec
from stoker.spec.continued import differences
from stoker.spec.document import Document

AT = "/checkpoint/resume_from"


@dataclass(frozen=True)
class Source:
    """The checkpoint that a document names."""

    id: str
    """Of its row."""
    step: int
    spec: JobSpec
    """Of the job that made it."""

    def check(self, spec: JobSpec, plan: Plan) -> None:
        """Raises SpecError when the job that goes on from it would be another one, or over already."""
        found = differences(self.spec, spec)
        if plan.steps.total is not None and plan.steps.total <= self.step:
            message = f"the checkpoint is of step {self.step}, and the run would end at {plan.steps.total}"
            found.append(Finding(pointer="/training", code="continued-too-short", message=message, hint="train longer"))
        if found:
            raise SpecError(found)


def source_of(session: Session, who: Principal, project: str, document: Document) -> tuple[Document, Source | None]:
    """The document with its checkpoint pinned to a step, and the checkpoint. Raises 422 where there is none."""
    section = document.value.get("checkpoint")
    ref = section.get("resume_from") if isinstance(section, dict) else None
    which = ref.get("checkpoint", "last") if isinstance(ref, dict) else None
    if not isinstance(section, dict) or not isinstance(ref, dict) or not isinstance(ref.get("job"), str):
        return document, None  # the grammar says what is wrong, if anything is
    if not isinstance(which, str | int) or isinstance(which, bool):
        return document, None
    job, row = _found(session, who, project, str(ref["job"]), str(which))
    value = {**document.value, "checkpoint": {**section, "resume_from": {**ref, "checkpoint": row.step}}}
    return replace(document, value=value), Source(row.id, row.step, JobSpec.model_validate_json(job.spec))


def _found(session: Session, who: Principal, project: str, job_id: str, which: str) -> tuple[Any, Checkpoint]:
    try:
        job = store.whole_job(session, who, job_id)
    except Refusal:
        job = None
    if job is None or job.project != project:
        raise _refused("job", "this project has no such job")
    try:
        if which not in ("last", "best", "final") and not (which.isascii() and which.isdigit() and len(which) < 17):
            raise ValueError(which)
        return job, checkpoints.readable(checkpoints.find(session, job, which))
    except (Refusal, ValueError) as error:
        raise _refused("checkpoint", "the job has no such checkpoint any more, or never had") from error


def _refused(key: str, message: str) -> Refusal:
    hint = "`stoker checkpoints JOB` lists what there is"
    return spec_problem(SpecError([Finding(pointer=f"{AT}/{key}", code="checkpoint-not-found", message=message, hint=hint)]))


def still_there(session: Session, source: Source) -> Checkpoint:
    """The checkpoint's row in the transaction that takes it. Raises 404 or 409 when it was let go meanwhile."""
    row = session.get(Checkpoint, source.id)
    if row is None:
        raise _refused("checkpoint", "the job has no such checkpoint any more")
    return checkpoints.readable(row)


def take(session: Session, taken: Iterable[tuple[str, str, Checkpoint]]) -> None:
    """Give jobs, by id and project, checkpoints to begin with: manifests of their own, so that they outlive the job that made them."""
    for job_id, project, made in taken:
        row = Checkpoint(
            id=new_id("ckp"),
            job_id=job_id,
            step=made.step,
            epoch=checkpoints.BEFORE,
            bytes=made.bytes,
            files=made.files,
            metrics=made.metrics,
            created_at=utcnow(),
        )
        blobs.refer(session, project, f"checkpoint:{row.id}", [(f["sha256"], f["bytes"]) for f in row.files])
        session.add(row)
    session.flush()
