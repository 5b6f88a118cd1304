"""`stoker wait`."""

import time
from typing import Annotated

import typer

from stoker.cli import emit
from stoker.cli.connection import REFERENCE, connect, known, resolve
from stoker.cli.follow import follow
from stoker.cli.gates import Gates, Require, tell
from stoker.cli.ls import JOBS
from stoker.cli.outcome import exit_code, sentence
from stoker.cli.terminal import say, wants_table


def wait(
    jobs: Annotated[list[str] | None, typer.Argument(metavar="JOB", help=REFERENCE, autocompletion=known)] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, help="Seconds to wait at most, over all jobs; then exit 6.")
    ] = None,
    require: Require = None,
    progress: emit.ProgressOption = "plain",
    quiet: emit.Quiet = False,
    fields: emit.Fields = None,
) -> None:
    """Wait until jobs have ended; the exit code says how.

    With several jobs the code is that of the first one that did not succeed.
    """
    gates = Gates.parse(require or [])
    until = None if timeout is None else time.monotonic() + timeout
    code = 0
    with connect() as client:
        for job in [resolve(client, reference) for reference in jobs or ["@last"]]:
            ended = follow(client, job, progress, None if until is None else max(0.0, until - time.monotonic()))
            verdict = gates.judge(client, ended)
            say(sentence(ended))
            tell(verdict)
            if quiet or fields is not None or not wants_table():
                emit.many([ended], JOBS, quiet=quiet, fields=fields)
            code = code or exit_code(ended, verdict.passed if verdict else None)
    raise typer.Exit(code)
