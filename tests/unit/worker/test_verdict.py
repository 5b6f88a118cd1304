"""The verdict over an attempt, row by row."""

import signal

import pytest

from stoker.events import Finished
from stoker.reasons import REASONS
from worker.agent.verdict import RankEnd, decide


def said(reason: str, step: int = 5, message: str = "") -> Finished:
    return Finished(step=step, reason=reason, message=message, metrics={"a/x": 1.0})


KILL, TERM, SEGV = -signal.SIGKILL, -signal.SIGTERM, -signal.SIGSEGV
DONE = RankEnd(0, 0, 0, finished=said("completed"))
SAVED = RankEnd(0, 75, 0, finished=said("preempted"))
LOST = RankEnd(0, 1, 0, finished=said("rank_lost", message="gloo: connection closed by peer"))

ROWS = [
    # ends, stop, out of memory, reason, exit code
    ([DONE], None, False, "completed", 0),
    ([RankEnd(0, 0, 0, finished=said("early_stopped"))], None, False, "early_stopped", 0),
    ([DONE, RankEnd(1, SEGV, 1)], None, False, "completed", 0),
    ([DONE], "cancelled_by_user", False, "completed", 0),
    ([SAVED], "paused_by_user", False, "paused_by_user", 75),
    ([SAVED], "cancelled_by_user", False, "cancelled_by_user", 75),
    ([SAVED], "drained", False, "drained", 75),
    ([SAVED], "time_limit", False, "time_limit", 75),
    ([SAVED], "self_fenced", False, "self_fenced", 75),
    ([SAVED], "preempted", False, "preempted", 75),
    ([SAVED], None, False, "preempted", 75),
    ([RankEnd(0, 75, 0)], None, False, "preempted", 75),
    ([RankEnd(0, KILL, 0, by_us=True)], "cancelled_by_user", False, "cancelled_by_user", KILL),
    ([RankEnd(0, KILL, 0, by_us=True)], "self_fenced", False, "self_fenced", KILL),
    ([RankEnd(0, TERM, 0), RankEnd(1, TERM, 0)], "paused_by_user", False, "paused_by_user", TERM),
    ([RankEnd(0, TERM, 0)], None, False, "rank_lost", 143),
    ([RankEnd(0, KILL, 1, by_us=True), RankEnd(1, KILL, 0)], None, False, "rank_lost", 137),
    ([RankEnd(0, KILL, 1, by_us=True), RankEnd(1, KILL, 0)], None, True, "host_oom", 137),
    ([LOST, RankEnd(1, KILL, 0)], None, False, "rank_lost", 137),
    ([RankEnd(0, SEGV, 0)], None, True, "rank_lost", 139),
    ([RankEnd(0, KILL, 0)], "paused_by_user", False, "rank_lost", 137),
    ([RankEnd(0, 137, 0)], None, False, "host_oom", 137),
    ([RankEnd(0, 1, 0, finished=said("user_error"))], None, False, "user_error", 1),
    ([RankEnd(0, 1, 0, finished=said("cuda_oom"))], None, False, "cuda_oom", 1),
    ([RankEnd(0, 3, 0, finished=said("nan_loss"))], None, False, "nan_loss", 3),
    ([RankEnd(0, 2, 0, finished=said("data_error"))], None, False, "data_error", 2),
    ([RankEnd(0, 1, 0)], None, False, "user_error", 1),
    ([RankEnd(0, 2, 0)], None, False, "spec_error", 2),
    ([RankEnd(0, 3, 0)], None, False, "nan_loss", 3),
    ([RankEnd(0, 41, 0)], None, False, "user_error", 41),
    ([RankEnd(0, 0, 0)], None, False, "user_error", 0),
    ([LOST, RankEnd(1, 1, 0, finished=said("user_error"))], None, False, "user_error", 1),
    ([LOST, RankEnd(1, 1, 1)], None, False, "user_error", 1),
    ([LOST], None, False, "rank_lost", 1),
    ([RankEnd(0, KILL, 1, by_us=True), RankEnd(1, 3, 0, finished=said("nan_loss"))], None, False, "nan_loss", 3),
    ([RankEnd(0, 1, 0, stderr="RuntimeError: EADDRINUSE")], None, False, "rank_lost", 1),
    ([RankEnd(0, 1, 0, finished=said("user_error"))], "paused_by_user", False, "user_error", 1),
    ([RankEnd(0, 1, 0, finished=said("user_error"))], "cancelled_by_user", False, "cancelled_by_user", 1),
    ([], None, False, "spawn_failed", None),
]


@pytest.mark.parametrize(("ends", "stop", "oom", "reason", "code"), ROWS)
def test_row(ends: list[RankEnd], stop: str | None, oom: bool, reason: str, code: int | None) -> None:
    verdict = decide(ends, stop, out_of_memory=oom)
    assert (verdict.reason, verdict.exit_code) == (reason, code)
    assert verdict.reason in REASONS


def test_what_the_run_said_is_kept() -> None:
    verdict = decide([SAVED], "paused_by_user")
    assert (verdict.step, dict(verdict.metrics)) == (5, {"a/x": 1.0})


def test_a_rank_without_last_words_is_quoted_from_stderr() -> None:
    assert "Traceback" in decide([RankEnd(0, 1, 0, stderr="Traceback: x")], None).message
