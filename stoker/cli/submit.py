"""`stoker submit`."""

from pathlib import Path
from typing import Annotated

import typer

from stoker.cli import ci, emit, source
from stoker.cli.connection import PATIENT, connect
from stoker.cli.follow import follow
from stoker.cli.gates import Gates, Require, tell
from stoker.cli.ls import pairs
from stoker.cli.outcome import exit_code, label, next_step, sentence
from stoker.cli.terminal import Progress, say, wants_table
from stoker.client import Client
from stoker.document.load import Document
from stoker.errors import Invalid, StokerError
from stoker.views import JobView


def submit(
    file: source.JobFile,
    override: source.Overrides = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the job.")] = None,
    label_: Annotated[list[str] | None, typer.Option("--label", "-l", metavar="K=V", help="Label; repeatable.")] = None,
    priority: Annotated[int | None, typer.Option("--priority", help="From -100 to 100; higher is placed first.")] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for its end; the exit code says how it ended.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Like --wait, with a live page.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not wait (the default).")] = False,
    require: Require = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, help="Seconds to wait at most; then exit 6; implies --wait.")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write a JUnit report; implies --wait.")] = None,
    summary: Annotated[Path | None, typer.Option("--summary", help="Write a Markdown summary; implies --wait.")] = None,
    baseline: Annotated[str | None, typer.Option("--baseline", help="Job that the summary compares with.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", help="Same key and file, same job; in CI made from the commit.")
    ] = None,
    progress: Annotated[
        Progress | None, typer.Option("--progress", help="auto with --watch, else plain: one line per change; or none.")
    ] = None,
    quiet: emit.Quiet = False,
    fields: emit.Fields = None,
) -> None:
    """Submit a job file.

    stoker submit job.yaml --watch
    stoker submit job.yaml -o optimizer.lr=3e-4 --name lr-3e-4
    stoker submit job.yaml --wait --require 'validation/accuracy>=0.95' --junit out.xml --summary out.md
    """
    gates = Gates.parse(require or [])
    stays = wait or watch or bool(gates.expressions) or any(x is not None for x in (timeout, junit, summary))
    if detach and stays:
        raise typer.BadParameter("--detach cannot be combined with options that wait")
    report = ci.Report(junit, summary, gates.expressions, baseline, stays)
    if baseline is not None and summary is None:
        raise typer.BadParameter("--baseline requires --summary")
    report.make_room()
    job: JobView | None = None
    try:
        document = source.read(file, override or [], source.Filing(name, pairs(label_), priority))
        with connect(PATIENT) as client:
            against = report.against(client)
            key = idempotency_key or ci.default_key({"spec": document.value, "gates": gates.expressions})
            job = send(client, document, key, gates)
            _announce(job, quiet, stays)
            if not stays:
                emit.many([job], _ids, quiet=True) if quiet else emit.one(job, lambda: None, fields=fields)
                return
            ended = follow(client, job, progress or ("auto" if watch else "plain"), timeout)
            verdict = gates.judge(client, ended)
            report.write(client, ended, verdict, against)
    except StokerError as error:
        report.broke_off(error, job)
        raise
    say(sentence(ended))
    tell(verdict)
    emit.many([ended], _ids, quiet=True) if quiet else emit.one(ended, lambda: next_step(ended), fields=fields)
    raise typer.Exit(exit_code(ended, verdict.passed if verdict else None))


_ids: emit.Shape[JobView] = emit.Shape(id=lambda job: job.id, columns=[], nothing="")


def send(client: Client, document: Document, key: str | None, gates: Gates) -> JobView:
    """Check here, then submit. Raises SpecError drawn on the file, for errors found here and by the server."""
    source.warn(source.check(document), document)
    try:
        return client.submit(document.value, idempotency_key=key, require=gates.expressions)
    except Invalid as error:
        raise source.from_server(error, document) from error


def _announce(job: JobView, quiet: bool, stays: bool) -> None:
    if not quiet and (stays or wants_table()):
        say(f"submitted {label(job)}")
        if not stays:
            say(f"  next: stoker watch {job.id}")
