"""A node that slept past its lease wakes up as nobody: its agent is refused, kills its ranks and changes nothing."""

import os
import signal
from pathlib import Path

from tests.faults.conftest import outcome
from tests.support.data import digits_csv, digits_job, upload
from tests.support.stack import Stack, alive, children_of, until


def test_a_zombie_is_refused(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "zombie", f"sqlite:///{tmp_path}/zombie/stoker.db", scale=0.03)
    try:
        stack.start()
        upload(stack, "digits", {"digits.csv": digits_csv()})
        spec = digits_job(
            training={"max_steps": 1200, "batch_size": 48, "gradient_accumulation_steps": 2},
            checkpoint={"interval": {"steps": 100}},
        )
        job = stack.submit(spec)
        stack.wait_step(job, 150)
        (agent,) = stack.agents(job)
        ranks = children_of(agent)
        for asleep in (stack.pid("node-1"), agent, *ranks):
            os.kill(asleep, signal.SIGSTOP)
        stack.start_worker("node-2")
        until(lambda: len(stack.get(f"/v1/jobs/{job}/attempts")["data"]) == 2, timeout=60, what="a second attempt")
        stack.wait_step(job, 150)
        assert len(ranks) == 2
        assert all(map(alive, [agent, *ranks])), "ranks that would go on"
        for asleep in (*ranks, agent):
            os.kill(asleep, signal.SIGCONT)
        until(lambda: not any(map(alive, [agent, *ranks])), timeout=30, what="zombie and its ranks gone")
        assert stack.wait(job)["state"] == "succeeded"
        attempts = sorted(stack.get(f"/v1/jobs/{job}/attempts")["data"], key=lambda a: a["number"])
        assert [(a["number"], a["state"], a["reason"]) for a in attempts] == [
            (1, "ended", "node_lost"),
            (2, "ended", "completed"),
        ]
        log = "".join(p.read_text(errors="replace") for p in (tmp_path / "zombie" / "node-1").rglob("*agent*.log"))
        assert "stale_attempt" in log
        twin = stack.submit(spec)
        stack.wait(twin)
        assert outcome(stack, job) == outcome(stack, twin)
    finally:
        for name in list(stack.processes):
            os.kill(stack.pid(name), signal.SIGCONT)
        stack.stop()
