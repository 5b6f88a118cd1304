"""kill -9 of one of four ranks at a random step: the run goes on from its last checkpoint, to the last bit.

`STOKER_FAULT_ROUNDS` sets the rounds (default 1; 10 for the full proof).
"""

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.conftest import outcome
from tests.support.data import digits_csv, digits_job, upload
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
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("many-ranks")
    stack = Stack(home, f"sqlite:///{home}/stoker.db", cpus=4)
    try:
        stack.start()
        upload(stack, "digits", {"digits.csv": digits_csv()})
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def undisturbed(roomy: Stack) -> Outcome:
    job = roomy.submit(JOB)
    roomy.wait(job, timeout=240)
    return outcome(roomy, job)


@pytest.mark.parametrize("number", ROUNDS)
def test_kill_one_of_four_ranks(roomy: Stack, undisturbed: Outcome, number: int) -> None:
    draw = random.Random(f"one of four {number}")
    job = roomy.submit(JOB)
    roomy.wait_step(job, draw.randint(60, 300))
    ranks = roomy.ranks(job)
    assert len(ranks) == 4
    os.kill(draw.choice(ranks), 9)
    assert roomy.wait(job, timeout=240)["state"] == "succeeded"
    first, second = roomy.get(f"/v1/jobs/{job}/attempts")["data"]
    assert (first["reason"], second["reason"]) == ("rank_lost", "completed")
    assert second["resumed_from"] > 0
    assert second["resumed_from"] % 50 == 0
    assert outcome(roomy, job) == undisturbed
