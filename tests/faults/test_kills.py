"""kill -9 of each part at a random step: the job ends as if nothing had happened, to the last bit.

`STOKER_FAULT_ROUNDS` sets the rounds of each (default 1; 10 for the full proof).
"""

import os
import random
from typing import Any

import pytest

from tests.faults.conftest import JOB, outcome
from tests.support.stack import Stack, alive, until

ROUNDS = range(int(os.environ.get("STOKER_FAULT_ROUNDS", "1")))
Outcome = tuple[dict[str, str], dict[str, Any]]


def interrupted(stack: Stack, part: str, number: int) -> str:
    """A new job, brought to a random step."""
    job = stack.submit(JOB)
    stack.wait_step(job, random.Random(f"{part}-{number}").randint(110, 800))
    return job


def attempts(stack: Stack, job: str) -> int:
    return len(stack.get(f"/v1/jobs/{job}/attempts")["data"])


@pytest.mark.parametrize("number", ROUNDS)
def test_kill_a_rank(stack: Stack, undisturbed: Outcome, number: int) -> None:
    job = interrupted(stack, "rank", number)
    ranks = stack.ranks(job)
    assert len(ranks) == 2
    os.kill(ranks[number % 2], 9)
    assert stack.wait(job)["state"] == "succeeded"
    assert attempts(stack, job) == 2
    assert outcome(stack, job) == undisturbed


@pytest.mark.parametrize("number", ROUNDS)
def test_kill_the_agent(stack: Stack, undisturbed: Outcome, number: int) -> None:
    job = interrupted(stack, "agent", number)
    (agent,), ranks = stack.agents(job), stack.ranks(job)
    os.kill(agent, 9)
    until(lambda: not any(map(alive, ranks)), timeout=10, what="ranks of a dead agent gone")
    assert stack.wait(job)["state"] == "succeeded"
    assert attempts(stack, job) == 2
    assert outcome(stack, job) == undisturbed


@pytest.mark.parametrize("part", ["server", "broker", "worker"])
@pytest.mark.parametrize("number", ROUNDS)
def test_kill_what_a_run_does_not_need(stack: Stack, undisturbed: Outcome, part: str, number: int) -> None:
    job = interrupted(stack, part, number)
    ranks = stack.ranks(job)
    name = stack.worker_name if part == "worker" else part
    stack.kill(name)
    assert all(map(alive, ranks))
    {"server": stack.start_server, "broker": stack.start_broker, "worker": stack.start_worker}[part]()
    assert stack.wait(job)["state"] == "succeeded"
    assert attempts(stack, job) == 1
    assert outcome(stack, job) == undisturbed


def test_jobs_start_without_the_broker(stack: Stack) -> None:
    stack.kill("broker")
    try:
        job = stack.submit(JOB | {"training": {"max_steps": 40, "batch_size": 48}})
        assert stack.wait(job, timeout=60)["state"] == "succeeded"
    finally:
        stack.start_broker()
