"""What a job starts from: another job's checkpoint or a data set of weights, found while its document is prepared."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlmodel import Session

from server.auth import Principal
from server.checkpoints import service as checkpoints
from server.checkpoints.tables import Checkpoint
from server.datasets import store as datasets
from server.datasets.service import parse_ref
from server.errors import Refusal, spec_problem
from server.jobs import store
from stoker.errors import Finding, SpecError
from stoker.protocol import BlobFile, DatasetFiles
from stoker.spec import JobSpec
from stoker.spec.problem import problem_of

AT = "/initialization/start"
GONE = "the job has no such checkpoint any more, or never had"
FOLDER = "start"
"""Where a checkpoint lies in a workspace, beside the data sets."""


@dataclass(frozen=True)
class Begun:
    """What became of a document's start."""

    value: dict[str, Any]
    """The document, its start pinned to a step or a version."""
    findings: tuple[Finding, ...] = ()
    spec: JobSpec | None = None
    """Of the job whose checkpoint it is."""
    checkpoint: str | None = None
    """The id of its row."""
    found: bool = False
    """Whether it names something that may go or have a newer version, so that the answer is not to be remembered."""


def begun(session: Session, who: Principal, project: str, value: dict[str, Any]) -> Begun:
    """The document as it is where it names no start that could exist, which the grammar reports."""
    start = _start(value)
    match start.get("type"):
        case "warm":
            return _warm(session, who, project, value, start)
        case "pretrained":
            return _pretrained(session, project, value, start)
        case _:
            return Begun(value)


def _start(value: dict[str, Any]) -> dict[str, Any]:
    section = value.get("initialization")
    start = section.get("start") if isinstance(section, dict) else None
    return start if isinstance(start, dict) else {}


def _pinned(value: dict[str, Any], **changes: Any) -> dict[str, Any]:
    section = value["initialization"]
    return {**value, "initialization": {**section, "start": {**section["start"], **changes}}}


def _refused(value: dict[str, Any], key: str, code: str, message: str, hint: str) -> Begun:
    return Begun(value, (Finding(pointer=f"{AT}/{key}", code=code, message=message, hint=hint),), found=True)


def _warm(session: Session, who: Principal, project: str, value: dict[str, Any], start: dict[str, Any]) -> Begun:
    ref = start.get("checkpoint")
    which = ref.get("checkpoint", "last") if isinstance(ref, dict) else None
    if not isinstance(ref, dict) or not isinstance(ref.get("job"), str) or len(ref["job"]) > 100 or not _names_one(which):
        return Begun(value)
    try:
        job = store.whole_job(session, who, ref["job"])
    except Refusal:
        job = None
    if job is None or job.project != project:
        return _refused(
            value, "checkpoint/job", "start-not-found", "this project has no such job", "`stoker ls` shows what there is"
        )
    try:
        row = checkpoints.readable(checkpoints.find(session, job, str(which)))
    except Refusal:
        hint = f"`stoker checkpoints ls {ref['job']}` shows which it has"
        return _refused(value, "checkpoint/checkpoint", "start-checkpoint-missing", GONE, hint)
    pinned = _pinned(value, checkpoint={**ref, "checkpoint": row.step})
    return Begun(pinned, (), JobSpec.model_validate_json(job.spec), row.id, found=True)


def still_there(session: Session, checkpoint: str) -> Checkpoint:
    """The checkpoint's row in the transaction that holds it. Raises 422 when it was let go meanwhile."""
    row = session.get(Checkpoint, checkpoint)
    try:
        if row is not None:
            return checkpoints.readable(row)
    except Refusal:
        pass
    finding = Finding(pointer=f"{AT}/checkpoint/checkpoint", code="start-checkpoint-missing", message=GONE, hint="name another")
    raise spec_problem(SpecError([finding]))


def _names_one(which: object) -> bool:
    return which in ("best", "last", "final") if isinstance(which, str) else type(which) is int and 0 < which < 2**31


def _pretrained(session: Session, project: str, value: dict[str, Any], start: dict[str, Any]) -> Begun:
    ref = start.get("source")
    if not isinstance(ref, str) or len(ref) > 200:
        return Begun(value)
    name, version = parse_ref(ref)
    row = datasets.one(session, project, name, version)
    if row is None:
        hint = "`stoker datasets ls` shows what there is; `stoker datasets upload` adds one"
        return _refused(value, "source", "start-not-found", "this project has no such data set, or not in that version", hint)
    if row.facts["kind"] != "weights":
        hint = "upload a data set of .safetensors files"
        return _refused(value, "source", "start-no-weights", f"this data set holds {row.facts['kind']}, not weights", hint)
    wanted, files = start.get("sha256"), [f for f in row.files if f["path"].endswith(".safetensors")]
    if isinstance(wanted, str) and [f["sha256"] for f in files] != [wanted]:
        had = files[0]["sha256"] if len(files) == 1 else f"{len(files)} files"
        hint = "name the version whose file has it, or leave it out"
        return _refused(value, "sha256", "start-other-bytes", f"the weights of {name}@{row.version} have {had}", hint)
    return Begun(_pinned(value, source=f"{name}@{row.version}"), found=True)


def unfit(spec: JobSpec, source: JobSpec) -> list[Finding]:
    """What of the source does not fit, as far as the specs alone say; the run compares each weight."""
    start = spec.initialization.start
    if start.type != "warm" or not start.strict or start.exclude_keys:
        return []
    return [
        Finding(
            pointer=f"{AT}/checkpoint/job",
            code="start-misfit",
            message=f"that job's {what} is {_shown(theirs)}, here it is {_shown(ours)}",
            hint=hint,
        )
        for what, ours, theirs, hint in _compared(spec, source, head=start.reset_head)
        if ours != theirs
    ]


def _compared(spec: JobSpec, source: JobSpec, *, head: bool) -> Iterator[tuple[str, object, object, str]]:
    yield "model", spec.model.type, source.model.type, "use the same model, or take some of the weights with strict: false"
    ours, theirs = problem_of(spec, None), problem_of(source, None)
    if not head and ours.outputs is not None and theirs.outputs is not None:
        yield "number of outputs", ours.outputs, theirs.outputs, "set reset_head to true"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def start_of(session: Session, project: str, spec: dict[str, Any]) -> tuple[DatasetFiles, ...]:
    """What a stored spec's job starts from, as the files of its workspace; without those of a checkpoint that is gone."""
    start = _start(spec)
    match start.get("type"):
        case "warm":
            ref = start["checkpoint"]
            job = session.execute(select(store.JOBS).where(store.JOBS.c.id == ref["job"])).one_or_none()
            try:
                files = () if job is None else checkpoints.readable(checkpoints.find(session, job, str(ref["checkpoint"]))).files
            except Refusal:
                return ()
            return (_files(FOLDER, files),) if files else ()
        case "pretrained":
            row = datasets.one(session, project, *parse_ref(start["source"]))
            return () if row is None else (_files(start["source"], row.files),)
        case _:
            return ()


def _files(ref: str, files: Any) -> DatasetFiles:
    """Rows carry more than a worker is told."""
    return DatasetFiles(ref=ref, files=tuple(BlobFile(path=f["path"], bytes=f["bytes"], sha256=f["sha256"]) for f in files))
