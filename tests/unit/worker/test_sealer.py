"""Events become frames in an order that readers rely on, with every bit of every number."""

import math
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.events import Metrics, Notice, Phase, Progress
from stoker.frames import MISSING_BITS, Frame, decode
from worker.agent.sealer import Sealer
from worker.agent.spool import Spool


def frames(spool: Spool) -> list[Frame]:
    return list(decode(spool.batch(0, 1 << 30)[0]))


def unpack(frame: Frame) -> tuple[list[int], dict[str, list[int]]]:
    """Steps, and columns as the bits of their numbers; written apart from the code under test."""
    rows, keys = frame.header["rows"], frame.header["keys"]
    words = [frame.payload[i : i + 8] for i in range(0, len(frame.payload), 8)]
    steps = [struct.unpack("<q", w)[0] for w in words[:rows]]
    columns = {k: [struct.unpack("<Q", w)[0] for w in words[rows * (i + 1) : rows * (i + 2)]] for i, k in enumerate(keys)}
    return steps, columns


def bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


events = st.lists(
    st.tuples(st.integers(0, 50), st.dictionaries(st.sampled_from(["a/x", "a/y", "b/z"]), st.floats(), min_size=1)), max_size=30
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_events=events)
def test_every_number_arrives_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, given_events: list[tuple[int, dict[str, float]]]
) -> None:
    spool = Spool(tmp_path_factory.mktemp("s") / "spool")
    sealer = Sealer(spool, 1.0)
    for step, values in given_events:
        sealer.metrics(Metrics(step=step, values=values, t=0.0), 0.0)
    sealer.flush()
    seen: list[tuple[int, str, int]] = []
    for frame in frames(spool):
        steps, columns = unpack(frame)
        assert (frame.header["first_step"], frame.header["last_step"]) == (min(steps), max(steps))
        for row, step in enumerate(steps):
            seen += [(step, key, column[row]) for key, column in columns.items() if column[row] != MISSING_BITS]
    assert sorted(seen) == sorted((step, key, bits(value)) for step, values in given_events for key, value in values.items())
    spool.close()


def test_numbers_that_json_lacks_are_strings(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    sealer = Sealer(spool, 1.0)
    sealer.metrics(Metrics(step=1, values={"a/x": math.nan, "a/y": -math.inf, "a/z": math.inf, "a/w": 0.5}, t=0.0), 0.0)
    sealer.flush()
    (frame,) = frames(spool)
    assert frame.header["last"] == {"a/x": "NaN", "a/y": "-Infinity", "a/z": "Infinity", "a/w": 0.5}
    spool.close()


def test_what_depends_on_metrics_comes_after_them(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    sealer = Sealer(spool, 1.0)
    sealer.metrics(Metrics(step=9, values={"a/x": 1.0}, t=0.0), 0.0)
    sealer.phase(Phase(name="checkpointing", t=0.0), 0.0)
    sealer.progress(Progress(step=9, epoch=0.1, samples=72, tokens=0), 0.0)
    assert not sealer.due(0.9)
    assert sealer.due(1.0)
    sealer.stored("checkpoint", {"step": 9})
    assert [frame.kind for frame in frames(spool)] == ["metrics", "progress", "phase", "checkpoint"]
    assert not sealer.due(100.0)
    spool.close()


def test_a_frame_never_outgrows_the_wire(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    sealer = Sealer(spool, 1.0)
    for step in range(60_000):
        sealer.metrics(Metrics.model_construct(step=step, values={"a/x": 0.0, "a/y": 1.0, "a/z": 2.0}, t=0.0), 0.0)
    sealer.flush()
    found = frames(spool)
    assert len(found) > 1
    assert sum(frame.header["rows"] for frame in found) == 60_000
    assert max(len(frame.payload) for frame in found) <= 2 << 20
    spool.close()


@pytest.mark.parametrize("data", [{"x": "y" * 100_000}, {"x": math.nan, "y": [math.inf]}, {"deep": {"a": {1, 2}}}])
def test_any_notice_can_be_sent(tmp_path: Path, data: dict[str, Any]) -> None:
    spool = Spool(tmp_path / "spool")
    Sealer(spool, 1.0).notice(Notice.model_construct(level="info", code="c", message="m" * 10_000, step=None, data=data), rank=3)
    (frame,) = frames(spool)
    assert len(frame.header["message"]) <= 4096
    spool.close()
