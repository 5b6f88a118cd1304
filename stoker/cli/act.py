"""`stoker cancel`, `pause`, `resume`, `retry`: requests that the server answers at once and fulfils in its own time."""

from collections.abc import Callable
from typing import Annotated

import typer

from stoker.cli import emit
from stoker.cli.connection import REFERENCE, connect, resolve
from stoker.cli.failure import report
from stoker.cli.terminal import say, wants_table
from stoker.client import Client
from stoker.errors import StokerError
from stoker.views import JobView

Jobs = Annotated[list[str], typer.Argument(help=REFERENCE)]


def cancel(jobs: Jobs) -> None:
    """Ask jobs to stop for good."""
    _each(jobs, lambda client, job: client.cancel(job.id))


def pause(jobs: Jobs) -> None:
    """Ask jobs to save and release their devices."""
    _each(jobs, lambda client, job: client.pause(job.id))


def resume(jobs: Jobs) -> None:
    """Continue paused jobs."""
    _each(jobs, lambda client, job: client.resume(job.id))


def retry(
    jobs: Jobs,
    from_start: Annotated[bool, typer.Option("--from-start", help="Forget its checkpoints and begin again.")] = False,
) -> None:
    """Run failed or cancelled jobs again from their last checkpoint."""
    _each(jobs, lambda client, job: client.retry(job.id, from_start=from_start))


def _each(references: list[str], verb: Callable[[Client, JobView], JobView]) -> None:
    """Do it to every job, whatever happens to the others; exit with the first failure's code."""
    code = 0
    with connect() as client:
        for reference in references:
            try:
                job = verb(client, resolve(client, reference))
            except StokerError as error:
                failed = report(error)
                code = code or failed
                continue
            if wants_table():
                say(f"{job.id} {job.state}{'' if job.desired == 'run' else f' (asked to {job.desired})'}")
            else:
                emit.one(job, lambda: None)
    if code:
        raise typer.Exit(code)
