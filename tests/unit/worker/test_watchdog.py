"""Who is accused of standing still, and when: liveness_by_rank written by hand, a clock that the test moves."""

from pathlib import Path

import pytest

from stoker.liveness import LAYOUT, name_of
from worker.agent.watchdog import LONGEST_LOOK, Watchdog
from worker.trainer.runtime.heartbeat import Heartbeat


def liveness(home: Path, rank: int, step: int, beats: int, phase: str = "training", at: int = 0) -> None:
    (home / name_of(rank)).write_bytes(LAYOUT.pack(step, beats, at or beats, phase.encode()))


class Clock:
    """Looks as an agent does, for a time in seconds."""

    def __init__(self, watchdog: Watchdog, ranks: tuple[int, ...] = (0, 1)) -> None:
        self.watchdog, self.ranks, self.at = watchdog, ranks, 100.0

    def watch(self, seconds: float, tick: float = 0.1) -> tuple[int, ...]:
        found: tuple[int, ...] = ()
        for _ in range(round(seconds / tick)):
            self.at += tick
            found = self.watchdog.look(self.at, self.ranks)
        return found


def stepping(home: Path) -> Clock:
    """Two ranks that have made their first step."""
    clock = Clock(Watchdog(home, timeout=5, grace=50))
    for step in (7, 8):
        liveness(home, 0, step, step)
        liveness(home, 1, step, step)
        clock.watch(0.1)
    return clock


def test_a_rank_that_beats_is_let_be(tmp_path: Path) -> None:
    clock = stepping(tmp_path)
    for step in range(9, 29):
        liveness(tmp_path, 0, step, step)
        liveness(tmp_path, 1, step, step)
        assert clock.watch(4.5) == ()


def test_a_rank_without_a_step_is_found(tmp_path: Path) -> None:
    clock = stepping(tmp_path)
    liveness(tmp_path, 0, 9, 9)
    assert clock.watch(4.5) == ()
    liveness(tmp_path, 0, 9, 10)  # it has its next batch, and waits
    assert clock.watch(1.0) == (1,)
    hang = clock.watchdog.judge((1,), {0: "S", 1: "S"})
    assert (hang.first, hang.step) == ((1,), 8)
    assert "after step 8; first to stand still: rank 1 (in phase training)" in hang.message


def test_a_stopped_process_is_named_before_an_older_heartbeat(tmp_path: Path) -> None:
    clock = stepping(tmp_path)
    liveness(tmp_path, 1, 9, 9)
    stuck = clock.watch(6)
    hang = clock.watchdog.judge(stuck, {0: "S", 1: "T"})
    assert hang.first == (1,)
    assert "stopped by a signal" in hang.message


@pytest.mark.parametrize("phase", ["loading_data", "building_model", "evaluating", "checkpointing"])
def test_what_is_no_step_may_take_long(phase: str, tmp_path: Path) -> None:
    clock = stepping(tmp_path)
    for rank in (0, 1):
        liveness(tmp_path, rank, 8, 9, phase)
    assert clock.watch(49) == ()
    assert clock.watch(2) == (0, 1)


def test_the_first_step_may_take_long_and_so_may_the_start(tmp_path: Path) -> None:
    clock = Clock(Watchdog(tmp_path, timeout=5, grace=50))
    assert clock.watch(40) == ()
    liveness(tmp_path, 0, 7, 1)
    liveness(tmp_path, 1, 7, 1)
    assert clock.watch(40) == ()
    assert clock.watch(20) == (0, 1)


def test_a_rank_that_ended_is_not_missed(tmp_path: Path) -> None:
    clock = stepping(tmp_path)
    clock.ranks = (1,)
    liveness(tmp_path, 1, 9, 9)
    assert clock.watch(4.5) == ()


def test_nobody_is_accused_of_the_sleep_of_the_machine(tmp_path: Path) -> None:
    clock = stepping(tmp_path)
    clock.at += 10_000
    assert clock.watch(5 - 2 * LONGEST_LOOK) == ()


def test_no_timeout_means_no_watch(tmp_path: Path) -> None:
    clock = Clock(Watchdog(tmp_path, timeout=None, grace=1))
    assert clock.watch(100) == ()


def test_the_trainer_writes_what_the_agent_reads(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path, 3)
    watchdog = Watchdog(tmp_path, 1, 1)
    assert watchdog._read(3) is None, "nothing yet"
    heartbeat.phase("loading_data")
    heartbeat.beat(5)
    heartbeat.phase("training")
    assert heartbeat.around(lambda value: value + 1)(1) == 2
    found = watchdog._read(3)
    assert found is not None
    assert (found.step, found.beats, found.phase) == (5, 4, "training")
