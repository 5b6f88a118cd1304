"""A rank that stands still holds up all: every rank says where it is, and the job goes on from its last checkpoint."""

import os
import signal
from typing import Any

from tests.faults.conftest import JOB, outcome
from tests.support.stack import Stack, alive, until

Outcome = tuple[dict[str, str], dict[str, Any]]


def test_stop_a_rank(stack: Stack, undisturbed: Outcome) -> None:
    job = stack.submit(JOB | {"debug": {"hang_timeout_seconds": 5 / stack.scale}})
    stack.wait_step(job, 300)
    ranks = stack.ranks(job)
    assert len(ranks) == 2
    names = {pid: rank_of(pid) for pid in ranks}
    stopped = ranks[0]
    os.kill(stopped, signal.SIGSTOP)
    until(lambda: not any(map(alive, ranks)), timeout=60, what="both ranks gone")
    assert stack.wait(job)["state"] == "succeeded"
    first, second = stack.get(f"/v1/jobs/{job}/attempts")["data"]
    assert (first["reason"], second["reason"]) == ("hang", "completed")
    assert second["resumed_from"] >= 200
    (told,) = [e["data"] for e in events(stack, job) if e["data"].get("code") == "hang"]
    assert told["data"]["first"] == [names[stopped]]
    assert set(told["data"]["steps"]) == {"0", "1"}
    assert f"rank {names[stopped]} (in phase training, stopped by a signal)" in first["message"]
    for rank in (0, 1):
        said = stderr_of(stack, job, rank)
        assert "most recent call first" in said
        assert "worker/trainer/loop.py" in said, "the stack goes through the loop"
    assert outcome(stack, job) == undisturbed


def events(stack: Stack, job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while page := stack.get(f"/v1/jobs/{job}/events", limit=500, after=found[-1]["seq"] if found else 0)["data"]:
        found += page
    return found


def rank_of(pid: int) -> int:
    """A forked rank's journal is open, and its name says which rank it is."""
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return next(int(link.rpartition("rank")[2].partition(".")[0]) for link in links if "events-rank" in link)


def stderr_of(stack: Stack, job: str, rank: int) -> str:
    with stack.http as http:
        answer = http.get(
            f"/v1/jobs/{job}/logs", params={"rank": rank, "stream": "err", "attempt": 1}, headers={"Accept": "text/plain"}
        )
    assert answer.status_code == 200, answer.text
    return answer.text
