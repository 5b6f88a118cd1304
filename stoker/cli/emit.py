"""Data on stdout: a table for a person; JSON for one thing and JSONL for many in a pipe; ids alone with -q."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import typer
from pydantic import BaseModel
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from stoker.cli.failure import Failure
from stoker.cli.terminal import Progress, out, wants_table

V = TypeVar("V")

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Ids only.")]
Fields = Annotated[
    str | None, typer.Option("--json", metavar="FIELDS", help="JSON with these fields, comma-separated; `all` for every one.")
]
ProgressOption = Annotated[Progress, typer.Option("--progress", help="In place on a terminal, one line per change, or none.")]


@dataclass(frozen=True)
class Column(Generic[V]):
    title: str
    text: Callable[[V], str]
    right: bool = False
    gives_way: bool = False
    """Whether it is shortened when the terminal is narrow; the others never are."""
    may_go: bool = False
    """Whether it is left out when the terminal is narrower still, the last such column first."""


@dataclass(frozen=True)
class Shape(Generic[V]):
    """How a kind of thing is listed."""

    id: Callable[[V], str]
    columns: Sequence[Column[V]]
    nothing: str
    """What a person reads instead of an empty table."""


def many(items: Iterable[V], shape: Shape[V], *, quiet: bool = False, fields: str | None = None) -> None:
    """A list."""
    if quiet:
        for item in items:
            print(shape.id(item))
    elif fields is not None or not wants_table():
        for item in items:
            print(_line(item, fields))
    else:
        draw(out(), list(items), shape)


def one(item: BaseModel | dict[str, Any], lines: Callable[[], None], *, fields: str | None = None) -> None:
    """One thing: `lines` prints it for a person."""
    if fields is not None or not wants_table():
        print(_line(item, fields))
    else:
        lines()


def _line(item: object, fields: str | None) -> str:
    data: Any = item.model_dump(mode="json") if isinstance(item, BaseModel) else item
    if fields is not None and fields != "all":
        data = {name: _field(data, name.strip()) for name in fields.split(",")}
    return json.dumps(data, ensure_ascii=False, allow_nan=False)


def _field(data: dict[str, Any], name: str) -> Any:
    """A field by name, `progress.step` for an inner one. Raises Failure with the names there are."""
    value: Any = data
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise Failure(f"no field `{name}`", f"fields are {', '.join(sorted(data))}", code=2)
        value = value[part]
    return value


def draw(console: Console, items: Sequence[V], shape: Shape[V]) -> None:
    """The table, or what is said instead of an empty one."""
    if not items:
        console.print(shape.nothing, style="dim")
        return
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    layout = _layout(items, shape.columns, console.width)
    for column, width in layout:
        table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True, width=width)
    for item in items:
        table.add_row(*(column.text(item) for column, _ in layout))
    console.print(table)


LEAST, GAP = 8, 2
"""Characters that a shortened column keeps, and those between two columns."""


def _layout(items: Sequence[V], columns: Sequence[Column[V]], room: int) -> list[tuple[Column[V], int]]:
    """The columns that have room, with their widths."""
    kept = [(column, max(cell_len(text) for text in (column.title, *map(column.text, items)))) for column in columns]

    def least() -> int:
        return sum((min(width, LEAST) if column.gives_way else width) + GAP for column, width in kept) - GAP

    while least() > room and (spare := [entry for entry in kept if entry[0].may_go]):
        kept.remove(spare[-1])
    left = room - least()
    out: list[tuple[Column[V], int]] = []
    for column, width in kept:
        given = min(width, LEAST + max(0, left)) if column.gives_way else width
        left -= given - min(width, LEAST) if column.gives_way else 0
        out.append((column, given))
    return out
