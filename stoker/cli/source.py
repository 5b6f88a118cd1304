"""The job file of a command: read, composed with its overrides, checked here before the network is asked."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from stoker.cli.terminal import language, say, wants_color
from stoker.client import Client, load_config
from stoker.document.document import Place, Source, Span, escaped
from stoker.document.load import Document, compose, load_file, load_text, render
from stoker.document.resolve import resolve
from stoker.errors import ApiError, ConfigError, Finding, NotFound, SpecError
from stoker.i18n import Lang

JobFile = Annotated[Path, typer.Argument(metavar="FILE", help="Job file (.yaml, .json, .toml); - for YAML on stdin.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--override", "-o", metavar="PATH=VALUE", help="Set a key, `optimizer.lr=1e-3`; repeatable.")
]


@dataclass(frozen=True)
class Filing:
    """How a job is filed, as given on the command line."""

    name: str | None = None
    labels: Mapping[str, str] | None = None
    priority: int | None = None


def lang() -> Lang:
    return "zh" if language() == "zh" else "en"


def read(path: Path, overrides: Sequence[str] = (), filing: Filing | None = None) -> Document:
    """The document as it will be sent. Raises SpecError with everything drawn, ConfigError for an unreadable file."""
    known = (
        load_text(sys.stdin.buffer.read(), "yaml", name="stdin", lang=lang())
        if str(path) == "-"
        else load_file(path, lang=lang())
    )
    composed = compose(known, list(overrides), _fetch, lang=lang())
    return _filed(composed, filing or Filing())


def check(document: Document) -> tuple[Finding, ...]:
    """What can be said without data; the warnings. Raises SpecError with every error."""
    try:
        return resolve(document, lang=lang()).warnings
    except SpecError as error:
        raise drawn(error, document) from None


def warn(found: Sequence[Finding], document: Document) -> None:
    """Show warnings on stderr; they stop nothing."""
    if warnings := [finding for finding in found if finding.severity == "warning"]:
        say(render(warnings, document, color=wants_color()))


def drawn(error: SpecError, document: Document) -> SpecError:
    """The error with its findings drawn for this terminal."""
    return SpecError(error.findings, render(error.findings, document, color=wants_color()))


def from_server(error: ApiError, document: Document) -> SpecError | ApiError:
    """The server's findings drawn on the local file; other refusals as they are."""
    return drawn(SpecError(error.problem.errors), document) if error.problem.errors else error


def _filed(document: Document, filing: Filing) -> Document:
    """The document with the flags above it; a finding about one of them points at that flag."""
    given = {"name": filing.name, "priority": filing.priority}
    more: dict[str, Any] = {key: one for key, one in given.items() if one is not None}
    flags = [_flag(f"--{key}", f"/{key}", "", str(one)) for key, one in more.items()]
    if filing.labels:
        labels = document.value.get("labels")
        more["labels"] = {**(labels if isinstance(labels, dict) else {}), **filing.labels}
        flags += [_flag("--label", f"/labels/{escaped(key)}", f"{key}=", one) for key, one in filing.labels.items()]
    return replace(document, value={**document.value, **more}, sources=(*document.sources, *flags))


def _flag(name: str, pointer: str, lead: str, value: str) -> Source:
    """A flag's text as something that findings can point into."""
    key = Span(1, 1, len(lead) - 1) if lead else None
    place = Place(Span(1, len(lead) + 1, max(1, len(value))), key)
    return Source(name, lead + value, lambda _: {pointer: place}, "override")


def _fetch(job_id: str) -> dict[str, Any] | None:
    """What `extends: job:ID` stands for."""
    if load_config().url.value is None:
        raise ConfigError("`extends: job:…` needs a server; set STOKER_URL or run `stoker up`")
    with Client() as client:
        try:
            return client.spec(job_id)  # as submitted: what was worked out for that job is worked out anew for this one
        except NotFound:
            return None
