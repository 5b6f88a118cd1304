"""A job that goes on from another one's checkpoint, through the whole system: the bits of the job planned that long."""

from pathlib import Path
from typing import Any

import pytest

from stoker.document.load import load_file
from tests.support.data import digits_csv, upload
from tests.support.stack import Stack

WSD: dict[str, Any] = dict(load_file(Path(__file__).parents[2] / "examples/features/wsd.yaml").value)


@pytest.fixture(scope="module", autouse=True)
def uploaded(installation: Stack) -> None:
    upload(installation, "digits", {"digits.csv": digits_csv()})


def _weights(installation: Stack, job: str) -> str:
    """Digest of what a job ended with."""
    files = installation.get(f"/v1/jobs/{job}/checkpoints/final")["files"]
    return str(next(file["sha256"] for file in files if file["path"] == "model.safetensors"))


def test_a_longer_job_goes_on_from_the_stable_stretch_of_a_shorter_one(installation: Stack) -> None:
    short = WSD | {"checkpoint": {"interval": {"steps": 20}}}
    decay = {"type": "wsd", "warmup_steps": 8, "decay_steps": 10}
    first = installation.wait(installation.submit(short), timeout=200)
    assert first["state"] == "succeeded", installation.story(first["id"])
    long = WSD | {"schedule": decay, "training": WSD["training"] | {"max_steps": 120}}
    ref = {"resume_from": {"job": first["id"], "checkpoint": 60}}  # the decay began at step 60
    jobs = [installation.submit(long), installation.submit(long | {"checkpoint": ref})]
    whole, on = (installation.wait(job, timeout=200) for job in jobs)
    for job in (whole, on):
        assert job["state"] == "succeeded", installation.story(job["id"])
    assert on["progress"]["step"] == 120
    steps = installation.get(f"/v1/jobs/{on['id']}/metrics")["keys"]["train/loss"]["steps"]
    assert min(steps) > 60
    assert _weights(installation, on["id"]) == _weights(installation, whole["id"])
