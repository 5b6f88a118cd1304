"""`stoker metrics`."""

import csv
import json
import math
import sys
from typing import Annotated, Literal

import typer
from rich.table import Table

from stoker.cli import words
from stoker.cli.connection import REFERENCE, connect, resolve
from stoker.cli.terminal import out, wants_table
from stoker.client import columns, number
from stoker.views import MetricsView


def metrics(
    job: Annotated[str, typer.Argument(help=REFERENCE)] = "@last",
    keys: Annotated[list[str] | None, typer.Option("--key", "-k", help="Only this key; repeatable.")] = None,
    points: Annotated[int, typer.Option("--points", min=1, max=10_000, help="At most so many points per key.")] = 1000,
    statistic: Annotated[
        Literal["min", "mean", "max", "last"], typer.Option("--statistic", help="Of the points that share a bucket.")
    ] = "last",
    form: Annotated[
        Literal["auto", "jsonl", "csv"], typer.Option("--format", help="auto: curves here, JSONL in a pipe.")
    ] = "auto",
) -> None:
    """Print a job's metrics.

    stoker metrics @last
    stoker metrics digits -k validation/loss --format csv > loss.csv
    """
    with connect() as client:
        view = client.metrics(resolve(client, job).id, keys or (), max_points=points)
    if form == "auto" and wants_table():
        _curves(view)
        return
    table = columns(view, statistic)
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    if form == "csv":
        writer = csv.DictWriter(sys.stdout, list(table))
        writer.writeheader()
        writer.writerows({k: int(v) if k == "step" else v for k, v in row.items()} for row in rows)
        return
    for row in rows:
        print(json.dumps({k: int(v) if k == "step" and v is not None else _plain(v) for k, v in row.items() if v is not None}))


def _plain(value: float | None) -> float | str | None:
    """JSON has no NaN: the wire's words are kept."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _curves(view: MetricsView) -> None:
    if not view.keys:
        out().print("no metrics yet", style="dim")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("KEY", "CURVE", "LAST", "MIN", "MAX", "POINTS"):
        table.add_column(title, no_wrap=True, justify="left" if title in ("KEY", "CURVE") else "right")
    for key, series in sorted(view.keys.items()):
        mean = [v for v in map(number, series.mean) if v is not None]
        lows, highs = [v for v in map(number, series.min) if v is not None], [v for v in map(number, series.max) if v is not None]
        last = words.measure(series.last[-1]) if series.last else "–"
        ends = [words.measure(min(lows, default=None)), words.measure(max(highs, default=None))]
        table.add_row(key, words.sparkline(mean, 32), last, *ends, words.count(sum(series.count)))
    out().print(table)
