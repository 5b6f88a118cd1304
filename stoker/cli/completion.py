"""`stoker completion`."""

from typing import Annotated, Literal

import typer
from typer._completion_shared import get_completion_script

Shell = Literal["bash", "zsh", "fish", "powershell"]


def completion(shell: Annotated[Shell, typer.Argument(help="Your shell.")]) -> None:
    """Print the completion script of a shell.

    stoker completion bash > ~/.local/share/bash-completion/completions/stoker
    """
    typer.echo(get_completion_script(prog_name="stoker", complete_var="_STOKER_COMPLETE", shell=shell))
