"""Data on stdout: a table for a person; JSON for one thing and JSONL for many in a pipe; ids alone with -q."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import typer
from pydantic import BaseModel
from rich.table import Table

from stoker.cli.failure import Failure
from stoker.cli.terminal import out, wants_table

V = TypeVar("V", bound=BaseModel)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Ids only.")]
Fields = Annotated[
    str | None, typer.Option("--json", metavar="FIELDS", help="JSON with these fields, comma-separated; `all` for every one.")
]


@dataclass(frozen=True)
class Column(Generic[V]):
    title: str
    text: Callable[[V], str]
    right: bool = False
    gives_way: bool = False
    """Whether it is shortened when the terminal is narrow; the others never are."""


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
        _table(list(items), shape)


def one(item: BaseModel | dict[str, Any], lines: Callable[[], None], *, fields: str | None = None) -> None:
    """One thing: `lines` prints it for a person."""
    if fields is not None or not wants_table():
        print(_line(item, fields))
    else:
        lines()


def _line(item: BaseModel | dict[str, Any], fields: str | None) -> str:
    data = item.model_dump(mode="json") if isinstance(item, BaseModel) else item
    if fields is not None and fields != "all":
        data = {name: _field(data, name.strip()) for name in fields.split(",")}
    return json.dumps(data, ensure_ascii=False, allow_nan=False)


def _field(data: dict[str, Any], name: str) -> Any:
    """A field by name, `progress.step` for an inner one. Raises Failure with the names there are."""
    value: Any = data
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise Failure(f"there is no field `{name}`", f"fields are {', '.join(sorted(data))}", code=2)
        value = value[part]
    return value


def _table(items: list[V], shape: Shape[V]) -> None:
    if not items:
        out().print(shape.nothing, style="dim")
        return
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    widths = {column.title: max(len(text) for text in (column.title, *map(column.text, items))) for column in shape.columns}
    loose = [column.title for column in shape.columns if column.gives_way]
    room = out().width - sum(width + 2 for title, width in widths.items() if title not in loose)
    for column in shape.columns:
        width = min(widths[column.title], max(8, room // len(loose) - 2)) if column.title in loose else widths[column.title]
        table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True, width=width)
    for item in items:
        table.add_row(*(column.text(item) for column in shape.columns))
    out().print(table)
