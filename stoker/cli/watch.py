"""`stoker watch`."""

from typing import Annotated

import typer

from stoker.cli import emit
from stoker.cli.connection import REFERENCE, connect, resolve
from stoker.cli.follow import ProgressOption, follow
from stoker.cli.outcome import exit_code, sentence
from stoker.cli.terminal import say


def watch(
    job: Annotated[str, typer.Argument(help=REFERENCE)] = "@last",
    events: Annotated[bool, typer.Option("--events", help="Print each event as one JSON line instead.")] = False,
    after: Annotated[int, typer.Option("--after", min=0, help="With --events: only those after this number.")] = 0,
    timeout: Annotated[float | None, typer.Option("--timeout", help="Seconds to watch at most; then exit 6.")] = None,
    progress: ProgressOption = "auto",
    fields: emit.Fields = None,
) -> None:
    """Follow a job until it ends; the exit code says how it ended.

    Ctrl-C detaches; the job keeps running.
    """
    with connect() as client:
        found = resolve(client, job)
        if events:
            for event in client.watch(found.id, after=after):
                print(event.model_dump_json(), flush=True)
            ended = client.job(found.id)
        else:
            ended = follow(client, found, progress, timeout)
            say(sentence(ended))
            emit.one(ended, lambda: None, fields=fields)
        raise typer.Exit(exit_code(ended))
