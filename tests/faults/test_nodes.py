"""A run on two nodes is the run on one; killing either node's agent costs an attempt and changes nothing, to the last bit.

`STOKER_FAULT_ROUNDS` sets the rounds of each (default 1; 10 for the full proof).
"""

import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import JOB, outcome
from tests.support.data import digits_csv, upload
from tests.support.stack import Stack, alive, children_of, until

ROUNDS = range(int(os.environ.get("STOKER_FAULT_ROUNDS", "1")))
Outcome = tuple[dict[str, str], dict[str, Any]]
PAIR = JOB | {"distributed": {"strategy": "ddp", "nodes": 2, "processes_per_node": 1}}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An installation with two workers, at two addresses of the loopback interface."""
    home = tmp_path_factory.mktemp("nodes")
    stack = Stack(home, f"sqlite:///{home}/stoker.db", cpus=2)
    try:
        stack.start()
        stack.start_worker("node-2", STOKER_WORKER_ADDRESS="127.0.0.2")
        upload(stack, "digits", {"digits.csv": digits_csv()})
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def on_one_node(pair: Stack) -> Outcome:
    """The same job, both ranks on one node: what every run on two nodes must equal."""
    job = pair.submit(JOB)
    pair.wait(job)
    return outcome(pair, job)


def newest(stack: Stack, job: str) -> dict[str, Any]:
    return dict(stack.get(f"/v1/jobs/{job}/attempts")["data"][-1])


def agents(stack: Stack, job: str) -> dict[str, int]:
    """Process id of the newest attempt's agent on each worker."""
    found = {}
    for node in newest(stack, job)["nodes"]:
        path = stack.home / node["worker"] / "runs" / node["id"] / "agent.json"
        found[node["worker"]] = int(json.loads(path.read_text())["pid"])
    return found


@pytest.mark.proves("DIST-02")
def test_two_nodes_run_as_one(pair: Stack, on_one_node: Outcome) -> None:
    job = pair.submit(PAIR)
    pair.wait_step(job, 60)
    running = newest(pair, job)
    assert {n["worker"] for n in running["nodes"]} == {"node-1", "node-2"}
    assert [n["state"] for n in running["nodes"]] == ["running", "running"]
    assert [len(children_of(agent)) for agent in agents(pair, job).values()] == [1, 1], "a rank on each node"
    assert pair.wait(job)["state"] == "succeeded"
    assert outcome(pair, job) == on_one_node
    (attempt,) = pair.get(f"/v1/jobs/{job}/attempts")["data"]
    assert (attempt["reason"], [n["state"] for n in attempt["nodes"]]) == ("completed", ["ended", "ended"])
    with pair.http as http:
        assert "[1] " in http.get(f"/v1/jobs/{job}/logs", headers={"Accept": "text/plain"}).text, "node 1's output is kept"


@pytest.mark.proves("DIST-02")
def test_a_model_in_shards_over_two_nodes_continues_from_pieces_of_both(pair: Stack) -> None:
    spread = {"strategy": "fsdp", "processes_per_node": 1, "nodes": 2}
    brief = JOB | {"training": JOB["training"] | {"max_steps": 400}}
    job = pair.submit(brief | {"distributed": spread})
    until(lambda: pair.get(f"/v1/jobs/{job}/checkpoints")["data"], timeout=90, what="a checkpoint")
    pieces = [f["path"] for f in pair.get(f"/v1/jobs/{job}/checkpoints/last")["files"] if f["path"].startswith("shard-")]
    assert len(pieces) == 2, "each node stored its own"
    os.kill(agents(pair, job)["node-2"], signal.SIGKILL)
    assert pair.wait(job)["state"] == "succeeded"
    attempts = pair.get(f"/v1/jobs/{job}/attempts")["data"]
    assert [a["reason"] for a in attempts] == ["agent_lost", "completed"]
    assert attempts[1]["resumed_from"]
    twin = pair.submit(brief | {"distributed": spread | {"nodes": 1, "processes_per_node": 2}})
    pair.wait(twin)
    assert outcome(pair, job)[1] == outcome(pair, twin)[1], "the same losses as on one node that nothing interrupted"


@pytest.mark.proves("DIST-02")
def test_fewer_nodes_when_one_is_gone_and_all_when_it_is_back(pair: Stack, on_one_node: Outcome) -> None:
    """The batch stays the same, so an interrupted elastic run learns as well; sums of other shares differ in the last bits."""
    spread = {"strategy": "ddp", "nodes": 2, "min_nodes": 1, "processes_per_node": 1}
    job = pair.submit(PAIR | {"distributed": spread})
    pair.wait_step(job, 120)
    (agent,) = [pid for worker, pid in agents(pair, job).items() if worker == "node-2"]
    pair.kill("node-2")
    os.kill(agent, signal.SIGKILL)
    until(lambda: newest(pair, job)["number"] == 2, timeout=90, what="a second attempt")
    assert [n["worker"] for n in newest(pair, job)["nodes"]] == ["node-1"]
    until(lambda: pair.job(job)["state"] == "running", timeout=60, what="the run goes on with one node")
    pair.post(f"/v1/jobs/{job}/pause", {})
    pair.wait(job, "paused")
    pair.start_worker("node-2", STOKER_WORKER_ADDRESS="127.0.0.2")
    pair.post(f"/v1/jobs/{job}/resume", {})
    assert pair.wait(job)["state"] == "succeeded"
    attempts = pair.get(f"/v1/jobs/{job}/attempts")["data"]
    assert [len(a["nodes"]) for a in attempts] == [2, 1, 2]
    assert pair.job(job)["progress"]["samples"] == 51 * 1257 + 23 * 48, "1400 steps of 48, and 27 to an epoch of 1,257 samples"
    ours, theirs = outcome(pair, job)[1]["validation/loss"], on_one_node[1]["validation/loss"]
    assert ours["steps"] == theirs["steps"]
    assert ours["last"][-1] == pytest.approx(theirs["last"][-1], abs=0.1)


@pytest.mark.proves("DIST-02")
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("number", ROUNDS)
def test_kill_the_agent_of_a_node(pair: Stack, on_one_node: Outcome, victim: int, number: int) -> None:
    job = pair.submit(PAIR)
    pair.wait_step(job, random.Random(f"node-{victim}-{number}").randint(110, 800))
    where, everyone = newest(pair, job), agents(pair, job)
    ranks = [child for agent in everyone.values() for child in children_of(agent)]
    os.kill(everyone[where["nodes"][victim]["worker"]], signal.SIGKILL)
    until(lambda: not any(map(alive, ranks)), timeout=20, what="ranks of both nodes gone")
    assert pair.wait(job)["state"] == "succeeded"
    first, second = pair.get(f"/v1/jobs/{job}/attempts")["data"]
    assert (first["reason"], second["reason"]) == ("agent_lost", "completed")
    assert second["resumed_from"], "it continued from a checkpoint"
    assert outcome(pair, job) == on_one_node


def test_a_zombie_of_the_second_node_is_refused(tmp_path: Path) -> None:
    """Node 1 sleeps past its lease: the run goes on elsewhere, and what wakes up is told so and dies."""
    stack = Stack(tmp_path / "zombies", f"sqlite:///{tmp_path}/zombies/stoker.db", scale=0.03)
    try:
        stack.start()
        stack.start_worker("node-2", STOKER_WORKER_ADDRESS="127.0.0.2")
        upload(stack, "digits", {"digits.csv": digits_csv()})
        job = stack.submit(PAIR)
        stack.wait_step(job, 150)
        (second,) = [node for node in newest(stack, job)["nodes"] if node["node"] == 1]
        zombie = agents(stack, job)[second["worker"]]
        ranks = children_of(zombie)
        for asleep in (stack.pid(second["worker"]), zombie, *ranks):
            os.kill(asleep, signal.SIGSTOP)
        stack.start_worker("node-3", STOKER_WORKER_ADDRESS="127.0.0.3")
        until(lambda: newest(stack, job)["number"] == 2, timeout=60, what="a second attempt")
        assert all(map(alive, [zombie, *ranks]))
        for asleep in (*ranks, zombie):
            os.kill(asleep, signal.SIGCONT)
        until(lambda: not any(map(alive, [zombie, *ranks])), timeout=30, what="zombie and its ranks gone")
        assert stack.wait(job)["state"] == "succeeded"
        first, last = stack.get(f"/v1/jobs/{job}/attempts")["data"]
        assert (first["reason"], last["reason"], last["number"]) == ("node_lost", "completed", 2)
        assert second["worker"] not in [node["worker"] for node in last["nodes"]]
        log = (stack.home / second["worker"] / "runs" / second["id"] / "agent.log").read_text(errors="replace")
        assert "stale_attempt" in log
        twin = stack.submit(JOB)
        stack.wait(twin)
        assert outcome(stack, job) == outcome(stack, twin)
    finally:
        for name in list(stack.processes):
            os.kill(stack.pid(name), signal.SIGCONT)
        stack.stop()
