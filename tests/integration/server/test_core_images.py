"""Jobs that not every worker's image can run wait for one that can, and `why` says so; workers are scripted."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.support.live import JOB, beat, live, upload_toy
from tests.support.stack import until


@dataclass
class Pool:
    user: httpx.Client
    worker: httpx.Client

    def submit(self, **more: Any) -> str:
        answer = self.user.post("/v1/jobs", json=JOB | more)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def why(self, job: str) -> dict[str, Any]:
        found: dict[str, Any] = self.user.get(f"/v1/jobs/{job}/why").json()
        return found

    def placed(self, job: str) -> tuple[str, dict[str, Any]]:
        """The worker that a job was given, and what of it."""
        attempts: list[dict[str, Any]] = until(
            lambda: self.user.get(f"/v1/jobs/{job}/attempts").json()["data"], timeout=15, what="placed"
        )
        return attempts[0]["worker"], attempts[0]["devices"]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with (
        live(tmp_path_factory.mktemp("images"), scale=0.5) as server,
        server.client("read", "submit", "admin") as user,
        server.client("worker") as worker,
    ):
        upload_toy(user)
        yield Pool(user, worker)


@pytest.mark.proves("DIST-05")
def test_a_job_for_horovod_waits_for_a_worker_that_has_it(pool: Pool) -> None:
    beat(pool.worker, "plain", cpus=8, gpus=2)
    job = pool.submit(distributed={"strategy": "horovod", "processes_per_node": 2})
    said = pool.why(job)
    assert said["needs"]["backends"] == ["horovod"]
    assert "worker-horovod" in said["message"]
    assert {worker["name"]: worker["missing"] for worker in said["workers"]} == {"plain": {"horovod": 1}}
    beat(pool.worker, "small", cpus=1, backends=("horovod",))
    until(lambda: "large enough" in pool.why(job)["message"], timeout=15, what="one that has it, and is too small")
    beat(pool.worker, "able", cpus=8, gpus=2, backends=("horovod",))
    worker, devices = pool.placed(job)
    assert (worker, devices["device"], devices["gpus"]) == ("able", "cpu", []), "no GPU stands idle beside it"


@pytest.mark.proves("DIST-12")
def test_a_tpu_is_given_to_one_job_at_a_time(pool: Pool) -> None:
    beat(pool.worker, "plain", cpus=8, gpus=2)
    first, second = (pool.submit(resources={"device": "tpu"}, distributed={"strategy": "single"}) for _ in range(2))
    assert "worker-tpu" in pool.why(first)["message"]
    beat(pool.worker, "board", cpus=8, tpus=1)
    worker, devices = pool.placed(first)
    assert (worker, devices["device"], devices["tpus"]) == ("board", "tpu", 1)
    lacks = {worker["name"]: worker["missing"] for worker in pool.why(second)["workers"]}
    assert lacks["board"] == lacks["plain"] == {"tpus": 1}
    workers = {worker["name"]: worker for worker in pool.user.get("/v1/workers").json()["data"]}
    assert (workers["board"]["capacity"]["tpus"], workers["board"]["held"]["tpus"]) == (1, 1)
