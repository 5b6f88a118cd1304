"""What a user may ask of a job while it lives: cancel, pause, resume, retry; and what an operator may ask of a worker."""

from typing import Any

import pytest

from tests.support.data import PERFORMANCE, digits_job
from tests.support.stack import Stack, until

pytestmark = pytest.mark.databases("postgresql")

LONG = {
    "training": {"max_steps": 1000, "batch_size": 48, "gradient_accumulation_steps": 2},
    "checkpoint": {"interval": {"steps": 100}},
}


def comparable(stack: Stack, job_id: str) -> dict[str, Any]:
    """Everything a run measured but its speed."""
    keys = stack.get(f"/v1/jobs/{job_id}/metrics", max_points=10_000)["keys"]
    return {k: v for k, v in keys.items() if not k.endswith(PERFORMANCE)}


def weights(stack: Stack, job_id: str) -> str:
    files = stack.get(f"/v1/jobs/{job_id}/checkpoints/last")["files"]
    return next(str(f["sha256"]) for f in files if f["path"] == "model.safetensors")


def test_pause_and_resume_change_nothing(stack: Stack) -> None:
    whole = stack.submit(digits_job(**LONG))
    stack.wait(whole)
    job = stack.submit(digits_job(**LONG))
    stack.wait_step(job, 300)
    stack.post(f"/v1/jobs/{job}/pause")
    paused = stack.wait(job, "paused")
    assert 300 <= paused["progress"]["step"] < 1000
    assert not stack.agents(job)
    stack.post(f"/v1/jobs/{job}/resume")
    assert stack.wait(job)["state"] == "succeeded"
    assert weights(stack, job) == weights(stack, whole)
    assert comparable(stack, job) == comparable(stack, whole)


def test_cancel_stops_the_ranks_and_retry_continues(stack: Stack) -> None:
    job = stack.submit(digits_job(**LONG))
    stack.wait_step(job, 200)
    stack.post(f"/v1/jobs/{job}/cancel")
    ended = stack.wait(job)
    assert ended["state"] == "cancelled"
    until(lambda: not stack.agents(job), timeout=20, what="agents gone")
    stack.post(f"/v1/jobs/{job}/retry")
    again = stack.wait(job)
    assert again["state"] == "succeeded"
    attempts = stack.get(f"/v1/jobs/{job}/attempts")["data"]
    assert len(attempts) == 2
    assert max(a["resumed_from"] or 0 for a in attempts) > 0


def test_a_queued_job_cancels_at_once_and_says_why_it_waited(stack: Stack) -> None:
    running = stack.submit(digits_job(**LONG))
    stack.wait(running, "running", "succeeded")
    waiting = stack.submit(digits_job(**LONG))
    why = stack.get(f"/v1/jobs/{waiting}/why")
    assert why["state"] == "queued"
    assert why["message"]
    assert stack.post(f"/v1/jobs/{waiting}/cancel")["state"] == "cancelled"
    stack.post(f"/v1/jobs/{running}/cancel")
    stack.wait(running)


def test_draining_a_worker_moves_its_job_on(stack: Stack) -> None:
    job = stack.submit(digits_job(**LONG))
    stack.wait_step(job, 100)
    worker = next(w for w in stack.get("/v1/workers")["data"] if w["name"] == stack.worker_name)
    stack.post(f"/v1/workers/{worker['id']}/drain")
    stack.wait(job, "queued", "succeeded")
    stack.post(f"/v1/workers/{worker['id']}/resume")
    assert stack.wait(job)["state"] == "succeeded"
