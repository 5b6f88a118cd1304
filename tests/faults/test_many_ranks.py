"""kill -9 of one of four ranks at a random step: the run goes on from its last checkpoint, to the last bit.

`STOKER_FAULT_ROUNDS` sets the rounds (default 1; 10 for the full proof).
"""

import os
import random
from typing import Any

import pytest

from tests.faults.conftest import outcome
from tests.support.data import digits_job
from tests.support.stack import Stack

ROUNDS = range(int(os.environ.get("STOKER_FAULT_ROUNDS", "1")))
Outcome = tuple[dict[str, str], dict[str, Any]]
JOB: dict[str, Any] = digits_job(
    training={"max_steps": 500, "batch_size": 48},
    distributed={"strategy": "ddp", "processes_per_node": 4},
    evaluation={"interval": {"steps": 250}},
    checkpoint={"interval": {"steps": 50}},
    logging={"interval": {"steps": 10}},
)


@pytest.fixture(scope="module")
def undisturbed(stack: Stack) -> Outcome:
    job = stack.submit(JOB)
    stack.wait(job, timeout=240)
    return outcome(stack, job)


@pytest.mark.parametrize("number", ROUNDS)
def test_kill_one_of_four_ranks(stack: Stack, undisturbed: Outcome, number: int) -> None:
    draw = random.Random(f"one of four {number}")
    job = stack.submit(JOB)
    stack.wait_step(job, draw.randint(60, 300))
    ranks = stack.ranks(job)
    assert len(ranks) == 4
    os.kill(draw.choice(ranks), 9)
    assert stack.wait(job, timeout=240)["state"] == "succeeded"
    first, second = stack.get(f"/v1/jobs/{job}/attempts")["data"]
    assert (first["reason"], second["reason"]) == ("rank_lost", "completed")
    assert second["resumed_from"] > 0
    assert second["resumed_from"] % 50 == 0
    assert outcome(stack, job) == undisturbed
