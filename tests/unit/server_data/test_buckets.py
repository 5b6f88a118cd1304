"""Buckets against a reference in plain Python, and the promise that a finished bucket never moves."""

import math
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.metrics.buckets import bucketed, width_of

floats = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324]))
points = st.lists(st.tuples(st.integers(0, 200), floats), min_size=1, max_size=60)


def reference(rows: list[tuple[int, float]], width: int) -> dict[int, tuple[float, float, float, float, int]]:
    groups: dict[int, list[tuple[int, int, float]]] = {}
    for order, (step, value) in enumerate(rows):
        groups.setdefault(step // width * width, []).append((step, order, value))
    out = {}
    for start, members in groups.items():
        values = [value for _, _, value in sorted(members, key=lambda m: m[:2])]
        real = [v for v in values if not math.isnan(v)] or [math.nan]
        out[start] = (min(real), _mean(values), max(real), values[-1], len(values))
    return out


def _mean(values: list[float]) -> float:
    if all(math.isfinite(v) for v in values):
        return float(sum(map(Fraction, values)) / len(values))
    with np.errstate(invalid="ignore"):
        return math.nan if any(math.isnan(v) for v in values) else float(np.sum([v for v in values if math.isinf(v)]))


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or a == b


def close(a: float, b: float, scale: float) -> bool:
    return same(a, b) or abs(a - b) <= 1e-9 * scale


def run(rows: list[tuple[int, float]], width: int) -> dict[int, tuple[float, float, float, float, int]]:
    b = bucketed([np.array([s for s, _ in rows])], [np.array([v for _, v in rows])], width)
    columns = (b.min.tolist(), b.mean.tolist(), b.max.tolist(), b.last.tolist(), b.count.tolist())
    return dict(zip(b.steps.tolist(), zip(*columns, strict=True), strict=True))


@given(points, st.sampled_from([1, 2, 5, 10, 50]))
@example([(0, 1e308), (0, 1e308)], 1)
@example([(0, math.inf), (0, -math.inf)], 1)
def test_buckets_are_what_plain_python_says(rows: list[tuple[int, float]], width: int) -> None:
    found, expected = run(rows, width), reference(rows, width)
    assert found.keys() == expected.keys()
    for start, (low, mean, high, last, count) in expected.items():
        got = found[start]
        assert same(got[0], low)
        assert same(got[2], high)
        assert same(got[3], last)
        assert got[4] == count
        scale = max([abs(v) for s, v in rows if s // width * width == start and math.isfinite(v)] or [1.0])
        assert close(got[1], mean, scale)
        assert math.isnan(got[1]) or low <= got[1] <= high


@given(points, points, st.sampled_from([1, 2, 5, 10, 50]))
def test_points_elsewhere_never_change_a_finished_bucket(
    rows: list[tuple[int, float]], later: list[tuple[int, float]], width: int
) -> None:
    before = run(rows, width)
    beyond = max(s for s, _ in rows) // width * width + width
    after = run(rows + [(s + beyond, v) for s, v in later], width)
    for start, bucket in before.items():
        assert struct.pack("4d", *bucket[:4]) == struct.pack("4d", *after[start][:4])
        assert bucket[4] == after[start][4]


@given(points, st.integers(1, 5))
def test_the_pieces_in_which_points_arrive_do_not_matter(rows: list[tuple[int, float]], pieces: int) -> None:
    size = -(-len(rows) // pieces)
    parts = [rows[at : at + size] for at in range(0, len(rows), size)]
    steps = [np.array([s for s, _ in part]) for part in parts]
    values = [np.array([v for _, v in part]) for part in parts]
    whole, split = bucketed([np.concatenate(steps)], [np.concatenate(values)], 5), bucketed(steps, values, 5)
    for name in ("steps", "min", "mean", "max", "last", "count"):
        assert getattr(whole, name).tobytes() == getattr(split, name).tobytes()


@given(st.integers(0, 10**9), st.integers(1, 10_000))
def test_the_width_is_the_least_of_its_series_and_constant_through_a_run_of_known_length(total: int, points: int) -> None:
    width = width_of(total, 0, points)
    assert -(-(total + 1) // width) <= points
    assert str(width).rstrip("0") in ("1", "2", "5")
    smaller = [d * 10**e for e in range(12) for d in (1, 2, 5) if d * 10**e < width]
    assert all(-(-(total + 1) // w) > points for w in smaller)
    assert {width_of(total, step, points) for step in (0, total // 2, total)} == {width}


def test_without_a_known_length_the_width_changes_only_at_powers_of_two() -> None:
    widths = [width_of(None, step, 100) for step in range(3000)]
    changes = [step for step in range(1, 3000) if widths[step] != widths[step - 1]]
    assert changes
    assert all(step & (step - 1) == 0 for step in changes)
    assert widths == sorted(widths)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-310])
def test_the_mean_of_equal_values_is_that_value(value: float) -> None:
    assert run([(s, value) for s in range(7)], 10)[0][1] == value
