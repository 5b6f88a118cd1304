"""Metrics as columns: one list of steps and one list per key, ready for a data frame or a plot."""

from typing import Literal

from stoker.views import MetricsView

Statistic = Literal["min", "mean", "max", "last"]


def columns(view: MetricsView, statistic: Statistic = "last") -> dict[str, list[float | None]]:
    """`step` and one column per key, all of one length; None where a key has no value at a step."""
    steps = sorted({step for series in view.keys.values() for step in series.steps})
    out: dict[str, list[float | None]] = {"step": [float(step) for step in steps]}
    for key, series in view.keys.items():
        values = dict(zip(series.steps, getattr(series, statistic), strict=True))
        out[key] = [number(values.get(step)) for step in steps]
    return out


def number(value: float | str | None) -> float | None:
    """A metric's value; the wire spells what JSON cannot say as "NaN", "Infinity", "-Infinity"."""
    return None if value is None else float(value)
