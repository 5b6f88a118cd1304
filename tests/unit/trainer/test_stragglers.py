"""Who is said to hold up the others, from numbers written by hand."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from worker.trainer.debug.stragglers import Stragglers
from worker.trainer.measure.figures import Performance, RankFigures
from worker.trainer.measure.stopwatch import Stopwatch
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.world import World


@contextmanager
def made(home: Path, ranks: int) -> Iterator[Stragglers]:
    world = World(0, ranks, torch.device("cpu"), 0, ranks)
    performance = Performance(Stopwatch(), world, unit="samples", flops=lambda: None, peak_tflops=None)
    journal = Journal(home, 0)
    yield Stragglers(performance, journal, factor=2.0, reports=3)
    journal.close()


def told(home: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (home / "events-rank0.jsonl").read_text().splitlines()]
    return [line["data"] for line in lines if line.get("code") == "straggler"]


def test_a_rank_is_named_once_it_is_slow_time_after_time(tmp_path: Path) -> None:
    with made(tmp_path, 4) as found:
        for _ in range(2):
            found.look([1.0, 1.1, 0.9, 2.5])
        assert told(tmp_path) == []
        found.look([1.0, 1.1, 0.9, 1.5])  # it recovers, and the count begins again
        for _ in range(5):
            found.look([1.0, 1.1, 0.9, 2.5])
        assert told(tmp_path) == [{"rank": 3, "seconds": 2.5, "usual": 1.0, "reports": 3}]
        found.look([1.0] * 4)
        for _ in range(3):
            found.look([1.0, 3.0, 1.0, 1.0])
        assert [each["rank"] for each in told(tmp_path)] == [3, 1]


def test_of_two_ranks_the_faster_one_is_usual(tmp_path: Path) -> None:
    with made(tmp_path, 2) as found:
        for _ in range(3):
            found.look([0.1, 0.25])
        assert [each["rank"] for each in told(tmp_path)] == [1]


def test_it_looks_at_the_time_that_is_a_ranks_own(tmp_path: Path) -> None:
    with made(tmp_path, 2) as found:
        for _ in range(3):
            # the first are steps, in which others are waited for
            found.performance.ranks = (RankFigures(9.0, 1.0, 0.0, 0.0, 0.0), RankFigures(1.0, 9.0, 0.0, 0.0, 0.0))
            assert found.read(1, 1) == {}
        assert [each["rank"] for each in told(tmp_path)] == [1]
