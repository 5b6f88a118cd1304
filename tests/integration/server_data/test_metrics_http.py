"""Metrics from report to curve: each point once, non-finite ones kept, superseded ones left out, deltas by cursor."""

import math
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlmodel import col

from server.metrics.tables import MetricChunk
from stoker.frames import MISSING, Frame, pack_metrics
from tests.integration.server_data.conftest import Reporter, Served


def points(reporter: Reporter, steps: list[int], **columns: list[float]) -> Frame:
    named = {key.replace("__", "/"): values for key, values in columns.items()}
    header = {"keys": list(named), "rows": len(steps), "first_step": min(steps), "last_step": max(steps), "last": {}}
    return reporter.frame("metrics", pack_metrics(steps, named), **header)


def curve(user: httpx.Client, job_id: str, **query: Any) -> dict[str, Any]:
    answer = user.get(f"/v1/jobs/{job_id}/metrics", params={"max_points": 2000} | query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def chunks(server: Served, job_id: str) -> list[Any]:
    query = select(MetricChunk.__table__).where(col(MetricChunk.job_id) == job_id).order_by(col(MetricChunk.seq))  # type: ignore[attr-defined]
    return server.db.read_now(lambda s: list(s.execute(query)))


@pytest.fixture
def reporter(server: Served) -> Reporter:
    return server.start_attempt(server.start_job())


def test_points_come_back_as_they_were_measured(reporter: Reporter, user: httpx.Client) -> None:
    values = [0.5, math.nan, math.inf, -math.inf, -0.0, 1e-310]
    assert reporter.send(points(reporter, list(range(6)), train__loss=values)).status_code == 200
    found = curve(user, reporter.job_id, max_points=10_000)
    assert found["bucket"] == 1
    series = found["keys"]["train/loss"]
    assert series["steps"] == [0, 1, 2, 3, 4, 5]
    assert series["last"] == [0.5, "NaN", "Infinity", "-Infinity", -0.0, 1e-310]
    assert math.copysign(1, series["last"][4]) == -1
    job = user.get(f"/v1/jobs/{reporter.job_id}").json()
    assert job["metrics"]["train/loss"] == 1e-310


def test_a_value_that_was_not_measured_is_no_point(reporter: Reporter, user: httpx.Client) -> None:
    reporter.send(points(reporter, [1, 2, 3], train__loss=[1, 2, 3], validation__loss=[MISSING, math.nan, MISSING]))
    keys = curve(user, reporter.job_id)["keys"]
    assert keys["validation/loss"]["count"] == [1]
    assert keys["validation/loss"]["last"] == ["NaN"]
    assert keys["train/loss"]["count"] == [1, 1, 1]
    assert list(curve(user, reporter.job_id, keys="validation/loss,nothing")["keys"]) == ["validation/loss"]


def test_a_bucket_keeps_its_spike_and_its_place(reporter: Reporter, user: httpx.Client) -> None:
    """1,000 announced steps in at most 100 buckets: ten steps wide from the first point to the last."""
    for begin in range(0, 1000, 100):
        values = [100.0 if step == 555 else float(step) for step in range(begin, begin + 100)]
        reporter.send(points(reporter, list(range(begin, begin + 100)), a=values))
        found = curve(user, reporter.job_id, max_points=101)
        assert found["bucket"] == 10
        assert found["keys"]["a"]["steps"] == list(range(0, begin + 100, 10))
    spike = found["keys"]["a"]
    assert (spike["min"][55], spike["max"][55], spike["count"][55]) == (100.0, 559.0, 10)
    assert spike["mean"][3] == 34.5


def test_repeated_overlapping_and_gapped_reports_store_each_point_once(
    server: Served, reporter: Reporter, user: httpx.Client
) -> None:
    frames = [points(reporter, [step], a=[float(step)]) for step in range(1, 7)]

    def send(*numbers: int) -> int:
        return int(reporter.send(*[frames[n] for n in numbers]).json()["acked_through"])

    assert send(0, 1) == 3  # the first frame of the attempt was `started`
    assert send(0, 1, 2) == 4
    assert send(5) == 4  # a gap: nothing after it is taken
    assert send(3, 5) == 5
    assert send(2, 3, 4, 5) == 7
    assert send(0) == 7
    assert curve(user, reporter.job_id)["keys"]["a"] == curve(user, reporter.job_id)["keys"]["a"] | {
        "steps": [1, 2, 3, 4, 5, 6],
        "count": [1] * 6,
        "last": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    }
    packed = [row.packed for row in chunks(server, reporter.job_id)]
    assert packed == [f.payload for f in frames]


@settings(max_examples=15, deadline=None, phases=(Phase.generate,), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 10)), min_size=1, max_size=12))
def test_any_order_of_reports_gives_the_contiguous_prefix(server: Served, windows: list[tuple[int, int]]) -> None:
    reporter = server.start_attempt(server.start_job())
    frames = [points(reporter, [step], a=[float(step)]) for step in range(10)]
    acked = 0
    for start, size in windows:
        window = range(start, min(start + size, 10))
        acked = max([acked, *[n + 1 for n in window if start <= acked]])
        assert reporter.send(*[frames[n] for n in window]).json()["acked_through"] == acked + 1
    assert [row.seq for row in chunks(server, reporter.job_id)] == list(range(2, acked + 2))


@pytest.mark.parametrize(
    "change",
    [
        {"keys": []},
        {"keys": "a"},
        {"keys": ["a", "a"]},
        {"keys": ["a", "b"]},
        {"keys": [1]},
        {"keys": ["x" * 200]},
        {"keys": ["a\nb"]},
        {"rows": 2},
        {"rows": -3},
        {"rows": 3.0},
        {"rows": True},
        {"rows": 2**62},
        {"first_step": 0},
        {"last_step": 99},
        {"first_step": None},
    ],
)
def test_a_frame_that_does_not_fit_is_refused_and_nothing_is_stored(
    reporter: Reporter, user: httpx.Client, change: dict[str, Any]
) -> None:
    good = points(reporter, [1, 2, 3], a=[1, 2, 3])
    bad = Frame(good.seq, "metrics", {**good.header, **change}, good.payload)
    answer = reporter.send(bad)
    assert answer.status_code in (400, 422), answer.text
    assert curve(user, reporter.job_id)["keys"] == {}
    assert reporter.send(good).status_code == 200


def test_steps_out_of_range_are_refused(reporter: Reporter) -> None:
    for steps in ([-1, 2], [1, 2**60]):
        assert reporter.send(points(reporter, steps, a=[1.0, 2.0])).json()["code"] == "frame_invalid"
        reporter.seq -= 1


def test_what_a_later_attempt_trains_again_is_superseded(server: Served, user: httpx.Client) -> None:
    job_id = server.start_job()
    first = server.start_attempt(job_id)
    first.send(points(first, list(range(0, 101, 10)), validation__loss=[1 - s / 1000 for s in range(0, 101, 10)]))
    before = curve(user, job_id)
    assert user.get(f"/v1/jobs/{job_id}").json()["objective"] == {
        "key": "validation/loss",
        "mode": "min",
        "best": 0.9,
        "last": 0.9,
        "best_step": 100,
    }
    second = server.start_attempt(job_id, resumed_from=50)
    second.send(points(second, [60, 70], validation__loss=[0.96, 0.97]))
    after = curve(user, job_id, since=before["cursor"])
    assert after["complete"]  # what was known is void
    series = after["keys"]["validation/loss"]
    assert series["steps"] == [0, 10, 20, 30, 40, 50, 60, 70]
    assert series["last"][-3:] == [0.95, 0.96, 0.97]
    assert series["count"] == [1] * 8
    objective = user.get(f"/v1/jobs/{job_id}").json()["objective"]
    assert objective == {"key": "validation/loss", "mode": "min", "best": 0.95, "last": 0.97, "best_step": 50}
    third = server.start_attempt(job_id)
    third.send(points(third, [0], validation__loss=[2.0]))
    assert curve(user, job_id)["keys"]["validation/loss"]["last"] == [2.0]


def test_a_cursor_gives_only_what_came_later(reporter: Reporter, user: httpx.Client) -> None:
    known: dict[int, float] = {}
    cursor = None
    for begin in range(0, 300, 30):
        steps = list(range(begin, begin + 30))
        reporter.send(points(reporter, steps, a=[float(s) for s in steps]))
        part = curve(user, reporter.job_id, max_points=50, **({"since": cursor} if cursor else {}))
        assert part["complete"] is (cursor is None)
        cursor = part["cursor"]
        if begin:
            assert len(part["keys"]["a"]["steps"]) <= 3  # buckets are 50 steps wide... at most those touched
        known.update(zip(part["keys"]["a"]["steps"], part["keys"]["a"]["mean"], strict=True))
    whole = curve(user, reporter.job_id, max_points=50)
    assert known == dict(zip(whole["keys"]["a"]["steps"], whole["keys"]["a"]["mean"], strict=True))
    nothing = curve(user, reporter.job_id, max_points=50, since=cursor)
    assert nothing == {"bucket": whole["bucket"], "cursor": cursor, "complete": False, "keys": {}}
    assert curve(user, reporter.job_id, max_points=10, since=cursor)["complete"]


def test_a_bad_question_is_refused(reporter: Reporter, user: httpx.Client, stranger: httpx.Client) -> None:
    url = f"/v1/jobs/{reporter.job_id}/metrics"
    for query in ({"since": "x"}, {"since": "1-2-3-4"}, {"max_points": 0}, {"max_points": 10**6}, {"keys": "k" * 20_000}):
        assert user.get(url, params=query).status_code in (414, 422)
    assert stranger.get(url).status_code == 404
    assert user.get("/v1/jobs/job_nothing/metrics").status_code == 404


def test_rows_out_of_step_order_are_read_in_order(reporter: Reporter, user: httpx.Client) -> None:
    reporter.send(points(reporter, [5, 3, 5, 4], a=[1.0, 2.0, 3.0, 4.0]))
    series = curve(user, reporter.job_id)["keys"]["a"]
    assert (series["steps"], series["last"], series["count"]) == ([3, 4, 5], [2.0, 4.0, 3.0], [1, 1, 2])
