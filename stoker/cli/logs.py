"""`stoker logs`."""

import sys
import time
from typing import Annotated

import typer

from stoker.cli.connection import REFERENCE, connect, resolve
from stoker.client import Client
from stoker.errors import ServerUnreachable
from stoker.status import is_terminal
from stoker.views import JobView

PAUSE = 1.0
"""Seconds between two looks while following."""


def logs(
    job: Annotated[str, typer.Argument(help=REFERENCE)] = "@last",
    rank: Annotated[int | None, typer.Option("--rank", min=0, help="Only this training process.")] = None,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=1, help="Only the last lines.")] = None,
    grep: Annotated[str | None, typer.Option("--grep", help="Only lines with this text.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """Print what a job wrote.

    stoker logs @last --follow
    stoker logs digits --rank 1 --grep error
    """
    with connect() as client:
        found = resolve(client, job)
        text = client.logs(found.id, rank=rank, tail=tail, grep=grep)
        _write(text)
        if follow:
            # Lines already printed are counted in the whole text, of which --tail shows only the end.
            shown = client.logs(found.id, rank=rank, grep=grep) if tail is not None else text
            _follow(client, found, rank, grep, shown)


def _follow(client: Client, job: JobView, rank: int | None, grep: str | None, shown: str) -> None:
    """Print what the text has grown by, until the job has ended and all is printed."""
    while True:
        try:
            ended = is_terminal(client.job(job.id).state)
            text = client.logs(job.id, rank=rank, grep=grep)
        except ServerUnreachable:
            time.sleep(PAUSE)
            continue
        _write(text[len(_common(shown, text)) :])
        shown = text
        if ended:
            return
        time.sleep(PAUSE)


def _common(before: str, now: str) -> str:
    """What is printed already: all of it, unless its last line was rewritten since."""
    if now.startswith(before):
        return before
    return before[: before.rfind("\n", 0, len(before) - 1) + 1]


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
