"""`stoker server` and `stoker worker`: one of them in this process, where `stoker up` would run both and a broker."""

import os
import sys

import typer

from stoker.cli.failure import Failure
from stoker.cli.stack.planes import module, require, with_planes

server_app = typer.Typer(add_completion=False, help="Run the server alone, in this process.")
worker_app = typer.Typer(add_completion=False, help="Run a worker alone, in this process.")


# Every argument is the server's, `--help` too.
@server_app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False)
def server(ctx: typer.Context) -> None:
    """Run the server alone, in this process: serve, migrate, create-key or openapi."""
    _become("server", ctx.args)


@worker_app.command()
def worker() -> None:
    """Run a worker alone, in this process.

    STOKER_URL, STOKER_KEY and STOKER_REDIS_URL name its server, its key (scope `worker`) and the broker.
    """
    if not os.environ.get("STOKER_KEY"):
        raise Failure("STOKER_KEY is not set; a worker needs a key", "stoker keys create NAME --scope worker", code=2)
    _become("worker", [])


def _become(plane: str, arguments: list[str]) -> None:
    """Replace this process, so that signals and the exit code are the program's. Raises Failure when packages are missing."""
    require(plane, wanted=plane)
    sys.stdout.flush()
    os.execve(sys.executable, module(plane, *arguments), with_planes(os.environ))  # noqa: S606  reason: a module of this package
