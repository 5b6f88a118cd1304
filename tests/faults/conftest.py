"""An installation for tests that kill its parts, one for each process of the run, and the run that nothing interrupted."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.data import PERFORMANCE, digits_csv, digits_job, upload
from tests.support.installation import running
from tests.support.stack import Stack

JOB: dict[str, Any] = digits_job(
    training={"max_steps": 1400, "batch_size": 48, "gradient_accumulation_steps": 2},
    evaluation={"interval": {"steps": 400}},
    checkpoint={"interval": {"steps": 100}},
)
"""Long enough that a run that is disturbed by step 800 has a second or more to go, on a machine that does nothing else."""


def outcome(stack: Stack, job_id: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Digests of the final checkpoint's tensors, and every series but those that tell the speed."""
    files = stack.get(f"/v1/jobs/{job_id}/checkpoints/last")["files"]
    keys = stack.get(f"/v1/jobs/{job_id}/metrics", max_points=10_000)["keys"]
    tensors = {f["path"]: f["sha256"] for f in files if f["path"].endswith(".safetensors")}
    return tensors, {k: v for k, v in keys.items() if not k.endswith(PERFORMANCE)}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server and a worker with room for four ranks; whoever ends a part starts it again."""
    home = tmp_path_factory.mktemp("faults")
    with running(Stack(home, f"sqlite:///{home}/stoker.db", cpus=4)) as stack:
        upload(stack, "digits", {"digits.csv": digits_csv()})
        yield stack


@pytest.fixture(scope="session")
def undisturbed(stack: Stack) -> tuple[dict[str, str], dict[str, Any]]:
    job = stack.submit(JOB)
    stack.wait(job)
    return outcome(stack, job)
