"""`stoker validate`: every mistake at once, here and, where a server is configured, against its data."""

from typing import Annotated, Literal

import typer

from stoker.cli import source
from stoker.cli.terminal import say, wants_color
from stoker.client import Client, load_config
from stoker.document.load import Document, report
from stoker.errors import AuthError, Finding, Invalid, ServerFault, ServerUnreachable, SpecError


def validate(
    file: source.JobFile,
    override: source.Overrides = None,
    form: Annotated[
        Literal["text", "json", "github", "sarif"], typer.Option("--format", help="How findings are written.")
    ] = "text",
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the server about the data set.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
) -> None:
    """Check a job file and show every mistake at once.

    stoker validate job.yaml
    stoker validate job.yaml --format sarif > job.sarif
    """
    document, found = examine(file, override or [], offline)
    errors = [f for f in found if f.severity == "error" or strict]
    if form != "text":
        typer.echo(report(found, document, form))
    elif found:
        typer.echo(report(found, document, "text", color=wants_color()), err=bool(errors))
    if errors:
        raise typer.Exit(2)
    if form == "text":
        say(f"{'stdin' if str(file) == '-' else file}: valid")


def examine(file: source.JobFile, overrides: list[str], offline: bool) -> tuple[Document, tuple[Finding, ...]]:
    """The document and all findings about it."""
    document = source.read(file, overrides)
    try:
        found = source.check(document)
    except SpecError as error:
        return document, error.findings
    return document, found if offline else online(document, found)


def online(document: Document, found: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The findings, with those of the server, which knows the data set; without a server, as they are."""
    if load_config().url.value is None:
        return found
    try:
        with Client(retries=1) as client:
            client.plan(document.value)
    except Invalid as error:
        return error.problem.errors or (Finding(code=error.problem.code, message=error.problem.detail),)
    except (ServerUnreachable, ServerFault, AuthError) as error:
        say(f"note: not checked against the data set: {error}")
    return found
