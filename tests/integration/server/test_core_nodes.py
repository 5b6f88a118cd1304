"""Jobs on several nodes as their agents see them, and pools of different machines; agents and GPUs are scripted."""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from stoker.frames import MEDIA_TYPE, Frame
from tests.support.live import JOB, Agent, Live, assigned, beat, claim, live, upload_toy
from tests.support.stack import until

PAIR = JOB | {"distributed": {"strategy": "ddp", "nodes": 2, "processes_per_node": 1}, "resources": {"device": "cpu"}}
HERE: dict[str, Any] = {"address": "10.0.0.1"}


@dataclass
class Pool:
    """A server, and workers that a test names; nothing of another test is on it."""

    server: Live
    user: httpx.Client
    worker: httpx.Client

    def submit(self, **more: Any) -> str:
        answer = self.user.post("/v1/jobs", json=PAIR | more)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def state(self, job: str) -> str:
        return str(self.user.get(f"/v1/jobs/{job}").json()["state"])

    def attempts(self, job: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.user.get(f"/v1/jobs/{job}/attempts").json()["data"]
        return found

    def held(self, name: str) -> int:
        workers = self.user.get("/v1/workers").json()["data"]
        return int(next(w for w in workers if w["name"] == name)["held"]["cpus"])

    def agents(self, boot: str = "boot-1") -> tuple[Agent, Agent]:
        """Both nodes' agents of the next job, node 0's first; `boot`: that of the right one."""
        boots = {"left": "boot-1", "right": boot}

        def assigned_to_both() -> Any:
            given = {name: beat(self.worker, name, boot=own, **HERE)["assigned"] for name, own in boots.items()}
            return given if all(given.values()) else None

        given = until(assigned_to_both, timeout=20, what="an attempt on both nodes")
        found = [self.take(name, one[0]) for name, one in given.items()]
        found.sort(key=lambda a: a.claimed["node"])
        assert [(a.claimed["node"], a.claimed["nodes"]) for a in found] == [(0, 2), (1, 2)]
        return found[0], found[1]

    def take(self, name: str, given: dict[str, Any]) -> Agent:
        """Claim what a worker was assigned."""
        body = {"worker": name, "epoch": given["epoch"], "agent_id": f"agent-{uuid.uuid4()}", "pid": 1}
        answer = self.worker.post(f"/v1/attempts/{given['attempt_id']}/claim", json=body)
        assert answer.status_code == 200, answer.text
        return Agent(self.server.url, given["attempt_id"], given["epoch"], answer.json())

    def running(self) -> tuple[str, Agent, Agent]:
        job = self.submit()
        first, second = self.agents()
        for port, agent in enumerate((first, second), 21_000):
            agent.report(("prepared", {"address": "10.0.0.9", "port": port}))
        first.started()
        return job, first, second


@contextlib.contextmanager
def pool(home: Path, url: str = "", scale: float = 0.5) -> Iterator[Pool]:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(live(home, url, scale=scale))
        user = stack.enter_context(server.client("read", "submit", "admin"))
        worker = stack.enter_context(server.client("worker"))
        upload_toy(user)
        yield Pool(server, user, worker)


@pytest.fixture(params=["sqlite", "postgresql"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pool]:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres").create_database()
    with pool(tmp_path, url) as made:
        yield made


def logs(rank: int, text: bytes, seq: int, offset: int) -> bytes:
    return Frame(seq, "logs", {"rank": rank, "stream": "out", "offset": offset}, text).encode()


@pytest.mark.proves("DIST-02")
def test_placed_on_all_nodes_at_once_or_on_none(nodes: Pool) -> None:
    beat(nodes.worker, "left", **HERE)
    job = nodes.submit()
    other = nodes.submit(distributed={"strategy": "single"}, name="small")
    assert claim(nodes.server, nodes.worker, "left", **HERE).claimed["job_id"] == other, "a job that fits passes it"
    assert (nodes.state(job), nodes.state(other)) == ("queued", "starting")
    why = nodes.user.get(f"/v1/jobs/{job}/why").json()["message"]
    assert "2 nodes" in why
    assert "1 worker is large enough" in why
    beat(nodes.worker, "far", address="127.0.0.1")
    why = nodes.user.get(f"/v1/jobs/{job}/why").json()["message"]
    assert "reach each other" in why
    assert "STOKER_WORKER_ADDRESS" in why
    nodes.agents()
    assert [n["worker"] for n in nodes.attempts(job)[0]["nodes"]] == ["left", "right"]
    assert (nodes.held("left"), nodes.held("right"), nodes.held("far")) == (2, 1, 0)


def test_ranks_are_started_when_every_node_is_prepared(nodes: Pool) -> None:
    beat(nodes.worker, "left", **HERE)
    nodes.submit()
    first, second = nodes.agents()
    place = {"address": "10.0.0.1", "port": 21_000}
    assert first.report(("prepared", place)).json()["meeting"] is None, "node 1 may have much to download"
    assert second.report().json()["meeting"] is None
    assert second.report(("prepared", {"address": "10.0.0.2", "port": 22_000})).json()["meeting"] == place, "all meet at node 0"
    assert first.report().json()["meeting"] == place
    assert first.report(("prepared", {"address": "a b", "port": 0})).status_code == 422


def test_node_0_speaks_for_the_run_and_all_nodes_outputs_are_kept(nodes: Pool) -> None:
    beat(nodes.worker, "left", **HERE)
    job, first, second = nodes.running()
    refused = second.report(("progress", {"step": 1, "epoch": 0.0, "samples": 1, "tokens": 0}))
    assert (refused.status_code, refused.json()["code"]) == (422, "frame_invalid")
    assert second.report(("notice", {"level": "info", "code": "x", "message": "heard"})).status_code == 200
    for agent, rank, offset in ((second, 1, 0), (first, 0, 0), (second, 1, 14)):
        agent.seq += 1
        header = {"Stoker-Epoch": "1", "Content-Type": MEDIA_TYPE}
        body = logs(rank, b"rank %d says %d\n" % (rank, agent.seq), agent.seq, offset)
        assert agent.post("report", content=body, headers=header).status_code == 200
        assert agent.post("report", content=body, headers=header).status_code == 200, "a repeated report changes nothing"
    text = nodes.user.get(f"/v1/jobs/{job}/logs", headers={"Accept": "text/plain"}).text
    assert text.splitlines() == ["[1] rank 1 says 3", "[0] rank 0 says 3", "[1] rank 1 says 4"], "in the order of arrival"
    assert nodes.attempts(job)[0]["state"] == "running"


def test_a_job_ends_with_its_last_node_for_the_reason_of_its_first(nodes: Pool) -> None:
    beat(nodes.worker, "left", **HERE)
    job, first, second = nodes.running()
    assert first.finish("completed", step=10).json() == {"state": "running"}
    assert (nodes.held("left"), nodes.held("right")) == (0, 1), "devices are free when their own node has let go of them"
    assert second.report().json()["desired"] == "run", "its ranks are ending too, and their last words are welcome"
    assert second.finish("rank_lost").json() == {"state": "succeeded"}
    (attempt,) = nodes.attempts(job)
    assert (attempt["reason"], attempt["ended_at"]) == ("completed", attempt["nodes"][1]["ended_at"])
    assert first.report().status_code == 409


@pytest.mark.proves("DIST-02")
def test_a_node_that_is_lost_stops_the_others_and_its_zombie_is_refused(nodes: Pool) -> None:
    beat(nodes.worker, "left", **HERE)
    job, first, zombie = nodes.running()
    beat(nodes.worker, "right", boot="boot-2", **HERE)
    assert first.report().json()["stop_reason"] == "peer_lost"
    assert nodes.state(job) == "running", "until the last node has let go"
    assert zombie.report().status_code == 409
    assert first.finish("rank_lost", message="connection closed").json() == {"state": "queued"}
    assert (nodes.attempts(job)[0]["reason"], nodes.attempts(job)[0]["nodes"][1]["reason"]) == ("node_lost", "node_lost")
    again, other = nodes.agents(boot="boot-2")
    assert (again.epoch, other.epoch) == (2, 2)
    answers = [
        a.status_code for a in (zombie.report(), zombie.finish("completed"), zombie.report(epoch=2), first.finish("completed"))
    ]
    assert answers == [409, 409, 409, 409]
    assert nodes.state(job) == "starting"


def test_what_a_node_did_is_the_cause_and_not_what_the_others_saw_of_it(nodes: Pool) -> None:
    beat(nodes.worker, "left", **HERE)
    job, first, second = nodes.running()
    assert first.finish("rank_lost", message="rank 0 lost the others").json() == {"state": "running"}
    assert second.report().json()["stop_reason"] == "peer_lost"
    assert second.finish("spec_error", message="layer 3 does not fit").json() == {"state": "failed"}
    assert nodes.attempts(job)[0]["reason"] == "spec_error"
    error = nodes.user.get(f"/v1/jobs/{job}").json()["error"]
    assert (error["reason"], error["message"]) == ("spec_error", "node 1 (right): layer 3 does not fit")


def test_cancel_reaches_every_node(nodes: Pool) -> None:
    beat(nodes.worker, "left", **HERE)
    job, first, second = nodes.running()
    nodes.user.post(f"/v1/jobs/{job}/cancel")
    assert {a.report().json()["stop_reason"] for a in (first, second)} == {"cancelled_by_user"}
    second.finish("cancelled_by_user")
    assert nodes.state(job) == "cancelling"
    assert first.finish("cancelled_by_user").json() == {"state": "cancelled"}
    unclaimed = nodes.submit(name="unclaimed")
    late = assigned(nodes.worker, "right", **HERE)
    one = claim(nodes.server, nodes.worker, "left", "agent-00000002", **HERE)
    nodes.user.post(f"/v1/jobs/{unclaimed}/cancel")
    body = {"worker": "right", "epoch": late["epoch"], "agent_id": "agent-00000003", "pid": 1}
    assert nodes.worker.post(f"/v1/attempts/{late['attempt_id']}/claim", json=body).status_code == 409, "nobody ran it"
    assert one.finish("cancelled_by_user").json() == {"state": "cancelled"}


def test_draining_one_node_stops_all_at_a_checkpoint(nodes: Pool) -> None:
    beat(nodes.worker, "left", **HERE)
    job, first, second = nodes.running()
    nodes.user.post("/v1/workers/right/drain").raise_for_status()
    assert {a.report().json()["stop_reason"] for a in (first, second)} == {"drained"}
    second.finish("drained", exit_code=75)
    assert first.report().json()["stop_reason"] == "drained", "node 0 may write its checkpoint"
    assert first.finish("drained", step=5).json() == {"state": "queued"}
    assert nodes.attempts(job)[0]["reason"] == "drained"
    assert "lost or draining" in nodes.user.get(f"/v1/jobs/{job}/why").json()["message"]


def test_a_silent_node_ends_the_run_when_its_lease_is_over(tmp_path: Path) -> None:
    with pool(tmp_path, scale=0.003) as nodes:
        beat(nodes.worker, "left", **HERE)
        job, first, silent = nodes.running()
        until(lambda: first.report().json()["stop_reason"] == "peer_lost", timeout=20, what="the other node is lost")
        first.finish("rank_lost")
        assert nodes.attempts(job)[0]["reason"] == "node_lost"
        assert silent.report().status_code == 409


def test_fewer_nodes_are_enough_for_a_job_that_says_so(nodes: Pool) -> None:
    elastic = {"strategy": "ddp", "nodes": 3, "min_nodes": 1, "processes_per_node": 1}
    beat(nodes.worker, "left", **HERE)
    job = nodes.submit(distributed=elastic, training={"max_steps": 10, "batch_size": 12})
    agent = claim(nodes.server, nodes.worker, "left", **HERE)
    assert (agent.claimed["nodes"], agent.claimed["spec"]["distributed"]["nodes"]) == (1, 3)
    for name in ("right", "third"):
        beat(nodes.worker, name, **HERE)
    agent.finish("rank_lost")
    claim(nodes.server, nodes.worker, "left", "agent-00000002", **HERE)
    assert [len(a["nodes"]) for a in nodes.attempts(job)] == [1, 3], "the next attempt has all there are"
    assert nodes.user.get(f"/v1/jobs/{job}").json()["resources"]["min_nodes"] == 1


@pytest.mark.proves("DIST-08")
def test_a_mixed_pool_gives_each_job_its_kind_of_device_by_name(nodes: Pool) -> None:
    """CPU workers beside one with three GPUs; nothing is promised twice and what does not fit waits."""
    gpu = {"strategy": "ddp", "processes_per_node": 2}
    beat(nodes.worker, "plain", cpus=8)
    beat(nodes.worker, "graphics", cpus=8, gpus=3)
    jobs = {
        "both": nodes.submit(name="both", distributed=gpu, resources={"device": "cuda"}),
        "waits": nodes.submit(name="waits", distributed=gpu, resources={"device": "cuda"}),
        "auto": nodes.submit(name="auto", distributed={"strategy": "single"}, resources={"device": "auto"}),
        "rest": nodes.submit(name="rest", distributed={"strategy": "single"}, resources={"device": "auto"}),
    }

    def where(name: str) -> Any:
        found = nodes.attempts(jobs[name])
        return found and (found[0]["worker"], found[0]["devices"]["device"], found[0]["devices"]["gpus"])

    until(lambda: where("rest"), timeout=15, what="all are placed that can be")
    assert where("both") == ("graphics", "cuda", [0, 1])
    assert where("auto") == ("graphics", "cuda", [2]), "auto takes a GPU where one is free"
    assert where("rest") == ("plain", "cpu", []), "and CPU slots elsewhere"
    assert where("waits") == []
    why = nodes.user.get(f"/v1/jobs/{jobs['waits']}/why").json()
    assert {w["name"]: w["missing"] for w in why["workers"]} == {"graphics": {"gpus": 2}, "plain": {"gpus": 2}}
    claimed = {a.claimed["devices"]["gpus"][0]: a for a in _claims(nodes, "graphics", 2)}
    claimed[0].finish("completed")
    until(lambda: where("waits"), timeout=15, what="freed devices are given on")
    assert where("waits") == ("graphics", "cuda", [0, 1]), "the devices that were freed, by name"


def _claims(nodes: Pool, name: str, count: int) -> list[Agent]:
    given = beat(nodes.worker, name, cpus=8, gpus=3)["assigned"]
    assert len(given) == count
    return [nodes.take(name, one) for one in given]


@pytest.mark.proves("DIST-08")
def test_pack_fills_workers_and_spread_shares_them(nodes: Pool) -> None:
    one = {"strategy": "single"}

    def placed(placement: str) -> str:
        beat(nodes.worker, "large", cpus=8)
        beat(nodes.worker, "small", cpus=4)
        job = nodes.submit(distributed=one, resources={"device": "cpu", "placement": placement}, name=placement)
        until(lambda: nodes.attempts(job), timeout=15, what="placed")
        return str(nodes.attempts(job)[0]["worker"])

    assert [placed("pack"), placed("pack")] == ["small", "small"]
    assert [placed("spread"), placed("spread")] == ["large", "large"]
