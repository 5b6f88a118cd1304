"""`stoker workers`."""

from typing import Annotated

import typer

from stoker.cli import emit, words
from stoker.cli.connection import connect
from stoker.cli.failure import Failure
from stoker.cli.terminal import say
from stoker.client import Client
from stoker.views import WorkerView

app = typer.Typer(no_args_is_help=True, help="List, drain and resume workers.", add_completion=False)
Worker = Annotated[str, typer.Argument(help="Name or id of a worker.")]


def _of(worker: WorkerView, what: str) -> str:
    have, held = worker.capacity.get(what) or 0, worker.held.get(what) or 0
    count, used = (len(x) if isinstance(x, (list, tuple)) else x for x in (have, held))
    return f"{used}/{count}"


WORKERS: emit.Shape[WorkerView] = emit.Shape(
    id=lambda worker: worker.id,
    columns=[
        emit.Column("NAME", lambda worker: worker.name),
        emit.Column("STATE", lambda worker: worker.state),
        emit.Column("CPUS", lambda worker: _of(worker, "cpus"), right=True),
        emit.Column("GPUS", lambda worker: _of(worker, "gpus"), right=True),
        emit.Column("MEMORY", lambda worker: words.size(worker.capacity.get("memory_bytes")), right=True),
        emit.Column("WARM", lambda worker: "yes" if worker.warm else "no", may_go=True),
        emit.Column("LOAD", lambda worker: f"{worker.load.get('cpu_percent', 0.0):.0f}%", right=True, may_go=True),
        emit.Column("JOBS", lambda worker: str(len(worker.jobs)), right=True),
        emit.Column("SEEN", lambda worker: words.age(worker.heartbeat_at), right=True),
    ],
    nothing="no workers; `stoker up` starts one, or run `stoker worker` on a machine",
)


@app.command()
def ls(quiet: emit.Quiet = False, fields: emit.Fields = None) -> None:
    """List workers with what they have and what is in use."""
    with connect() as client:
        emit.many(client.workers(), WORKERS, quiet=quiet, fields=fields)


@app.command()
def drain(worker: Worker) -> None:
    """Stop placing jobs on a worker; its jobs continue elsewhere from their checkpoints."""
    with connect() as client:
        say(f"{worker} {client.drain(_named(client, worker).id).state}")


@app.command()
def resume(worker: Worker) -> None:
    """Place jobs on a drained worker again."""
    with connect() as client:
        say(f"{worker} {client.undrain(_named(client, worker).id).state}")


def _named(client: Client, reference: str) -> WorkerView:
    found = [w for w in client.workers() if reference in (w.id, w.name)]
    if not found:
        raise Failure(f"no worker {reference!r}", "`stoker workers ls` lists them", code=10)
    return found[0]
