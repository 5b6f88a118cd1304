"""Entry point: the root command, loading of commands on demand, and the one place where errors become exit codes."""

import gc
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from stoker.cli.table import COMMANDS


class LazyGroup(TyperGroup):
    """Lists commands from the table and imports one only when it is called or completed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        _without_words_for_flags(self)
        self.commands = {name: TyperCommand(name, help=e.help, rich_help_panel=e.panel) for name, e in COMMANDS.items()}

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return (name, load(name), rest) if name and command else (name, command, rest)


def load(name: str) -> Any:
    """The command of a name, imported now."""
    module, attribute = COMMANDS[name].target.split(":")
    gc.disable()  # imports make much and drop little: looking for garbage meanwhile is an eighth of the start-up
    try:
        target = getattr(importlib.import_module(module), attribute)
    finally:
        gc.freeze()
        gc.enable()
    if not isinstance(target, typer.Typer):
        wrapped = typer.Typer(add_completion=False)
        wrapped.command(name)(target)
        target = wrapped
    command = typer.main.get_command(target)
    command.name = name
    _without_words_for_flags(command)
    return command


def _without_words_for_flags(command: Any) -> None:
    """A flag takes no value, so its help names no type."""
    for parameter in command.params:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    for inner in getattr(command, "commands", {}).values():
        _without_words_for_flags(inner)


app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start here: stoker up --detach && stoker init && stoker submit job.yaml --watch",
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(version("stoker"))
        raise typer.Exit


@app.callback()
def root(
    url: str | None = typer.Option(None, "--url", help="Server to talk to; else STOKER_URL or a config file."),
    key: str | None = typer.Option(None, "--key", help="API key; better in STOKER_KEY or a config file."),
    project: str | None = typer.Option(None, "--project", help="Project of the key."),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Stoker trains models: a job file in, a trained model out."""
    flags = {"STOKER_URL": url, "STOKER_KEY": key, "STOKER_PROJECT": project}
    # Flags win over the environment, so they replace it; every command then reads one source.
    os.environ.update({name: value for name, value in flags.items() if value is not None})
    if debug:
        os.environ["STOKER_DEBUG"] = "1"


CUT = 141
"""Exit code when the reader of stdout has gone, as a shell reports SIGPIPE; nothing that a job could mean."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. Never raises."""
    if "_STOKER_COMPLETE" in os.environ:
        importlib.import_module("typer.completion").completion_init()  # a shell asks what could follow
    stdout = sys.stdout
    try:
        code = app(args=list(argv) if argv is not None else None, prog_name="stoker", standalone_mode=True)
        return int(code or 0)
    except SystemExit as stop:
        gone = sys.stdout is not stdout  # typer has replaced it because the reader of our output has gone
        return CUT if gone else stop.code if isinstance(stop.code, int) else 1
    except BrokenPipeError:
        # The reader of our output has gone; point stdout elsewhere so that the interpreter's own flush does not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CUT
    except Exception as error:  # the last resort: every failure becomes a message and a code
        if os.environ.get("STOKER_DEBUG"):
            traceback.print_exc()
        return int(importlib.import_module("stoker.cli.failure").report(error))
