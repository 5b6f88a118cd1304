"""One job file, however it is sent, is one experiment; one idempotency key is one job."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from stoker import Client
from tests.support.data import digits_job
from tests.support.stack import ROOT, Stack

pytestmark = pytest.mark.databases("postgresql")

SHORT = {
    "schedule": {"type": "constant"},
    "training": {"max_steps": 5, "batch_size": 48},
    "evaluation": {"interval": {"steps": 5}},
}


def test_four_ways_give_one_digest(stack: Stack, tmp_path: Path) -> None:
    spec = digits_job(**SHORT)
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(spec))
    key = stack.key("read,submit,admin")
    environment = stack.environment | {"STOKER_URL": stack.url, "STOKER_KEY": key, "HOME": str(tmp_path)}
    cli = subprocess.run(
        [sys.executable, "-m", "stoker.cli", "submit", str(path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert cli.returncode == 0, cli.stderr
    digests = [json.loads(cli.stdout)["spec_digest"]]
    with Client(stack.url, key) as client:
        digests.append(client.submit(spec).spec_digest)
    for media, body in (("application/json", json.dumps(spec)), ("application/yaml", path.read_text())):
        command = [
            "curl",
            "-sS",
            "-X",
            "POST",
            stack.url + "/v1/jobs",
            "-H",
            f"Authorization: Bearer {key}",
            "-H",
            f"Content-Type: {media}",
            "--data-binary",
            "@-",
        ]
        answer = subprocess.run(command, input=body, capture_output=True, text=True, timeout=60)
        digests.append(json.loads(answer.stdout)["spec_digest"])
    assert len(set(digests)) == 1
    for job in stack.get("/v1/jobs", limit=4)["data"]:
        stack.wait(job["id"])


def test_twenty_parallel_submits_with_one_key_are_one_job(stack: Stack) -> None:
    spec = digits_job(**SHORT)
    with ThreadPoolExecutor(20) as pool:
        ids = set(pool.map(lambda _: stack.submit(spec, **{"Idempotency-Key": "twenty"}), range(20)))
    assert len(ids) == 1
    stack.wait(ids.pop())
