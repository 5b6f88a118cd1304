"""`stoker metrics`."""

import csv
import json
import math
import sys
from collections.abc import Iterator
from typing import Annotated, Literal, assert_never

import typer

from stoker.cli import emit, words
from stoker.cli.connection import Reference, connect, resolve
from stoker.cli.failure import Failure
from stoker.cli.openmetrics import exposition
from stoker.cli.terminal import wants_table
from stoker.client import columns, number
from stoker.client._columns import Statistic
from stoker.views import JobView, MetricsView, SeriesView

Form = Literal["auto", "jsonl", "csv", "openmetrics"]


def metrics(
    job: Reference = "@last",
    keys: Annotated[list[str] | None, typer.Option("--key", "-k", metavar="KEY", help="Only this key; repeatable.")] = None,
    points: Annotated[int, typer.Option("--points", min=1, max=10_000, help="Largest number of points per key.")] = 1000,
    statistic: Annotated[
        Statistic, typer.Option("--statistic", help="Which value stands for the points of one bucket.")
    ] = "last",
    form: Annotated[
        Form, typer.Option("--format", help="auto: curves here, JSONL in a pipe; openmetrics: the last values.")
    ] = "auto",
) -> None:
    """Print a job's metrics.

    stoker metrics @last
    stoker metrics digits -k validation/loss --format csv > loss.csv
    stoker metrics digits --format openmetrics > metrics.txt
    """
    with connect() as client:
        found = resolve(client, job)
        view = client.metrics(found.id, keys or (), max_points=points)
    _check_keys(found, keys or [], view)
    match form:
        case "auto" if wants_table():
            emit.many(view.keys.items(), shape(statistic))
        case "auto" | "jsonl":
            _write_jsonl(view, statistic)
        case "csv":
            _write_csv(view, statistic)
        case "openmetrics":
            last = {key: series.last[-1] for key, series in view.keys.items() if series.last}
            sys.stdout.write(exposition(found, {key: value for key, value in last.items() if value is not None}))
        case _:
            assert_never(form)


def _check_keys(job: JobView, keys: list[str], view: MetricsView) -> None:
    """Raises Failure for a key that the job has not logged."""
    if missing := [key for key in keys if key not in view.keys]:
        known = ", ".join(sorted(job.metrics)) or "none yet"
        raise Failure(f"the job has no metric {missing[0]!r}", f"it has {known}", code=10)


def _rows(view: MetricsView, statistic: Statistic) -> Iterator[dict[str, float | None]]:
    table = columns(view, statistic)
    for row in zip(*table.values(), strict=True):
        yield {**dict(zip(table, row, strict=True)), "step": int(row[0] or 0)}


def _write_jsonl(view: MetricsView, statistic: Statistic) -> None:
    for row in _rows(view, statistic):
        print(json.dumps({key: _plain(value) for key, value in row.items() if value is not None}))


def _write_csv(view: MetricsView, statistic: Statistic) -> None:
    writer = csv.DictWriter(sys.stdout, ["step", *view.keys], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(view, statistic))


def _plain(value: float | None) -> float | str | None:
    """JSON has no NaN: the wire's words are kept."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


Item = tuple[str, SeriesView]


def shape(statistic: Statistic) -> emit.Shape[Item]:
    def curve(item: Item) -> str:
        return words.sparkline(_numbers(getattr(item[1], statistic)), 32)

    return emit.Shape(
        id=lambda item: item[0],
        columns=[
            emit.Column("KEY", lambda item: item[0]),
            emit.Column("CURVE", curve),
            emit.Column("LAST", lambda item: words.measure(item[1].last[-1] if item[1].last else None), right=True),
            emit.Column("MIN", lambda item: words.measure(min(_numbers(item[1].min), default=None)), right=True),
            emit.Column("MAX", lambda item: words.measure(max(_numbers(item[1].max), default=None)), right=True),
            emit.Column("POINTS", lambda item: words.count(sum(item[1].count)), right=True),
        ],
        nothing="no metrics yet",
    )


def _numbers(values: list[float | str | None]) -> list[float]:
    return [found for found in map(number, values) if found is not None]
