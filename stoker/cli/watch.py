"""`stoker watch`."""

from typing import Annotated

import typer

from stoker.cli import emit
from stoker.cli.connection import Reference, connect, resolve
from stoker.cli.follow import events_of, follow
from stoker.cli.outcome import exit_code, next_step, sentence
from stoker.cli.terminal import say


def watch(
    job: Reference = "@last",
    events: Annotated[bool, typer.Option("--events", help="Print each event as one JSON line instead.")] = False,
    after: Annotated[int | None, typer.Option("--after", min=0, help="With --events: only those after this number.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", min=0, help="Seconds to watch at most; then exit 6.")] = None,
    progress: emit.ProgressOption = "auto",
    fields: emit.Fields = None,
) -> None:
    """Follow a job until it ends; the exit code says how it ended.

    Ctrl-C detaches; the job keeps running.
    """
    if after is not None and not events:
        raise typer.BadParameter("--after requires --events")
    if events and fields is not None:
        raise typer.BadParameter("--json cannot be combined with --events")
    with connect() as client:
        found = resolve(client, job)
        if events:
            for event in events_of(client, found, after or 0, timeout):
                print(event.model_dump_json(), flush=True)
            ended = client.job(found.id)
        else:
            ended = follow(client, found, progress, timeout)
            say(sentence(ended))
            emit.one(ended, lambda: next_step(ended), fields=fields)
        raise typer.Exit(exit_code(ended))
