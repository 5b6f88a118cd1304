"""`stoker cancel`, `pause`, `resume`, `retry`, `archive`: requests that the server accepts at once and fulfills later."""

from collections.abc import Callable
from typing import Annotated

import typer

from stoker.cli import emit
from stoker.cli.connection import PATIENT, References, connect, resolve
from stoker.cli.failure import report
from stoker.cli.outcome import label
from stoker.cli.terminal import say
from stoker.client import Client
from stoker.errors import StokerError
from stoker.views import JobView


def cancel(jobs: References, quiet: emit.Quiet = False, fields: emit.Fields = None) -> None:
    """Ask jobs to stop for good."""
    _each(jobs, lambda client, job: client.cancel(job.id), quiet, fields)


def pause(jobs: References, quiet: emit.Quiet = False, fields: emit.Fields = None) -> None:
    """Ask jobs to save and release their devices."""
    _each(jobs, lambda client, job: client.pause(job.id), quiet, fields)


def resume(jobs: References, quiet: emit.Quiet = False, fields: emit.Fields = None) -> None:
    """Continue paused jobs."""
    _each(jobs, lambda client, job: client.resume(job.id), quiet, fields)


def retry(
    jobs: References,
    from_start: Annotated[bool, typer.Option("--from-start", help="Start again from step 0, without its checkpoints.")] = False,
    quiet: emit.Quiet = False,
    fields: emit.Fields = None,
) -> None:
    """Run failed or cancelled jobs again from their last checkpoint."""
    _each(jobs, lambda client, job: client.retry(job.id, from_start=from_start), quiet, fields)


def archive(jobs: References, quiet: emit.Quiet = False, fields: emit.Fields = None) -> None:
    """Take ended jobs off the list; `stoker ls --archived` shows them."""
    _each(jobs, lambda client, job: client.archive(job.id), quiet, fields)


def _each(references: list[str], verb: Callable[[Client, JobView], JobView], quiet: bool, fields: str | None) -> None:
    """Apply the verb to each job, also after one failed; exit with the first failure's code."""
    code = 0
    with connect(PATIENT) as client:
        for reference in references:
            try:
                job = verb(client, resolve(client, reference))
            except StokerError as error:
                if len(references) > 1:
                    say(f"{reference}:")
                failed = report(error)
                code = code or failed
                continue
            _tell(job, quiet, fields)
    if code:
        raise typer.Exit(code)


def _tell(job: JobView, quiet: bool, fields: str | None) -> None:
    if quiet:
        print(job.id)
        return
    asked = "" if job.desired == "run" or job.state in ("cancelled", "paused") else f" (asked to {job.desired})"
    emit.one(job, lambda: say(f"{label(job)} {'archived' if job.archived_at else job.state}{asked}"), fields=fields)
