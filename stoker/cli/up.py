"""`stoker up`: server, broker and worker on this machine."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from stoker.cli.stack import control
from stoker.cli.stack.files import StackFiles
from stoker.cli.stack.planes import planes, require
from stoker.cli.stack.programs import broker_binary
from stoker.cli.stack.supervisor import Options


def up(
    host: Annotated[str, typer.Option(help="Address the server listens on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port; unset, the last one used, 7071 or a free one.")
    ] = None,
    state_dir: Annotated[Path | None, typer.Option(help="State directory; else STOKER_STATE_DIR or .stoker.")] = None,
    worker: Annotated[str, typer.Option(help="Name of the worker.")] = "local",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once it is ready.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the stack that runs here.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Say whether it runs, with pids and restarts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --status: as JSON.")] = False,
) -> None:
    """Run server, broker and worker on this machine.

    The database is SQLite and the broker an embedded Valkey unless STOKER_DATABASE_URL or STOKER_REDIS_URL name others.
    A process that ends is started again; running jobs continue meanwhile.
    """
    if as_json and not status:
        raise typer.BadParameter("--json requires --status")
    files = StackFiles.at(state_dir or Path(os.environ.get("STOKER_STATE_DIR") or ".stoker"))
    if stop:
        typer.echo("stopped" if control.stop(files) else "no stack runs here", err=True)
        return
    if status:
        _show(control.status(files), as_json)
        return
    now = control.status(files)
    if detach and now.running and now.record and now.record.state == "ready" and port in (None, now.record.port):
        typer.echo(f"Stoker is ready at {now.record.url} already; `stoker up --stop` stops it", err=True)
        return
    planes()
    require("server", "worker", wanted="local")
    if not os.environ.get("STOKER_REDIS_URL"):
        broker_binary()
    if detach:
        arguments = ["--host", host, "--state-dir", str(files.root), "--worker", worker]
        record = control.detach(files, [*arguments, *(["--port", str(port)] if port else [])])
        typer.echo(f"Stoker is ready at {record.url}; `stoker up --stop` stops it", err=True)
        return
    control.foreground(files, Options(host, port, worker), lambda line: typer.echo(line, err=True))


def _show(now: control.Status, as_json: bool) -> None:
    if as_json:
        record = asdict(now.record) if now.record else {}
        record.pop("broker_password", None)
        typer.echo(json.dumps({"running": now.running, **record}))
    else:
        typer.echo("\n".join(now.lines()))
    if not now.running:
        raise typer.Exit(7)
