"""`stoker datasets`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from stoker.cli import emit, transfer, words
from stoker.cli.connection import PATIENT, connect
from stoker.cli.failure import Failure
from stoker.cli.terminal import out, say
from stoker.errors import NotFound
from stoker.views import DatasetView

app = typer.Typer(no_args_is_help=True, help="Upload, list and download data sets.", add_completion=False)
Ref = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="Data set; without a version the newest.")]

DATASETS: emit.Shape[DatasetView] = emit.Shape(
    id=lambda data: f"{data.name}@{data.version}",
    columns=[
        emit.Column("DATA SET", lambda data: f"{data.name}@{data.version}"),
        emit.Column("SIZE", lambda data: words.size(data.bytes), right=True),
        emit.Column("DIGEST", lambda data: data.digest[:12]),
        emit.Column("AGE", lambda data: words.age(data.created_at), right=True),
    ],
    nothing="no data sets; `stoker datasets upload NAME PATH` makes one",
)


@app.command()
def upload(
    name: Annotated[str, typer.Argument(help="Name of the data set.")],
    path: Annotated[Path, typer.Argument(help="A file or a folder.")],
    form: Annotated[
        Literal["csv", "parquet", "text", "image_folder", "arrays"] | None,
        typer.Option("--format", help="Format of the files; unset, detected."),
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option("--delimiter", help="Character between two cells of CSV; unset, detected.")
    ] = None,
    progress: emit.ProgressOption = "auto",
    quiet: emit.Quiet = False,
    fields: emit.Fields = None,
) -> None:
    """Make a new version of a data set; bytes that the server has are not sent again."""
    with connect(PATIENT) as client, transfer.bar(name, progress) as tell:
        made = client.upload(name, path, format=form, delimiter=delimiter, progress=tell)
    if quiet:
        print(f"{made.name}@{made.version}")
    else:
        emit.one(made, lambda: _made(made), fields=fields)


@app.command()
def ls(quiet: emit.Quiet = False, fields: emit.Fields = None) -> None:
    """List data sets, the newest version of each."""
    with connect() as client:
        emit.many(client.datasets(), DATASETS, quiet=quiet, fields=fields)


@app.command()
def show(ref: Ref, fields: emit.Fields = None) -> None:
    """Show a data set's files and what was measured about it."""
    with connect() as client, _named(ref):
        found = client.dataset(ref)
    emit.one(found, lambda: _page(found), fields=fields)


@app.command()
def download(
    ref: Ref,
    to: Annotated[Path | None, typer.Option("--to", "-t", help="Folder to create; unset, the data set's name.")] = None,
    progress: emit.ProgressOption = "auto",
) -> None:
    """Download and verify a data set; prints where it is."""
    with connect(PATIENT) as client, _named(ref), transfer.bar(ref, progress) as tell:
        place = client.download_dataset(ref, to or Path(ref.replace("@", "-")), progress=tell)
    say("verified")
    print(place)


@contextmanager
def _named(ref: str) -> Iterator[None]:
    """Raises Failure with the data set's name when there is none."""
    try:
        yield
    except NotFound:
        raise Failure(f"no data set {ref!r}", "`stoker datasets ls` lists data sets", code=10) from None


def _made(made: DatasetView) -> None:
    say(f"{made.name}@{made.version}  {words.size(made.bytes)}")
    say(f"  next: write {made.name} as data.source.dataset of a job   (stoker init --dataset {made.name})")


def _page(data: DatasetView) -> None:
    out().print(f"{data.name}@{data.version}", style="bold")
    out().print(f"  {words.size(data.bytes)}  sha256 {data.digest}")
    for file in data.files:
        out().print(f"  {file.path:<40} {words.size(file.bytes):>10}")
    for key, value in (data.facts or {}).items():
        if key == "columns" and isinstance(value, list):
            out().print(f"  {key:<16} {len(value)}")
            for column in value:
                out().print(f"    {column.get('name', '?'):<24} {_column(column)}", style="dim")
        elif value is not None and not isinstance(value, (list, dict)):
            out().print(f"  {key:<16} {value!r}" if value == " " or value == "\t" else f"  {key:<16} {value}")


def _column(facts: dict[str, Any]) -> str:
    empty = f", {facts['nulls']:,} empty" if facts.get("nulls") else ""
    distinct = f", {facts['distinct']:,} values" if facts.get("distinct") is not None else ""
    return f"{facts.get('kind', '?')}{distinct}{empty}"
