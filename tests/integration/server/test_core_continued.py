"""Jobs that go on from another job's checkpoint: pinned, checked, and theirs whatever becomes of the other, on both databases."""

import hashlib
from typing import Any

import httpx

from tests.support.live import JOB, Agent, Live, claim
from tests.support.plain import NO_TLS

LONG = {"training": {"max_steps": 10, "batch_size": 8}, "schedule": {"type": "wsd", "decay_steps": 2}}


def saved(agent: Agent, worker: httpx.Client, step: int, *, final: bool = False) -> dict[str, Any]:
    """Upload a checkpoint of two files and announce it."""
    files = []
    for name in ("model.safetensors", "state.json"):
        data = f"{name} of step {step} of {agent.id}".encode()
        sha = hashlib.sha256(data).hexdigest()
        headers = {"Authorization": f"Bearer {agent.claimed['token']}", "Content-Type": "application/octet-stream"}
        stored = httpx.put(f"{agent.url}/v1/blobs/{sha}", content=data, headers=headers, verify=NO_TLS)
        assert stored.status_code in (200, 201, 204)
        files.append({"path": name, "bytes": len(data), "sha256": sha})
    header = {"step": step, "metrics": {"validation/loss": 1 / step}, "final": final, "files": files}
    assert agent.report(("checkpoint", header)).status_code == 200
    return header


def trained(served: Live, user: httpx.Client, worker: httpx.Client, *steps: int) -> str:
    """A job that saved at some steps and ended with the last."""
    job = user.post("/v1/jobs", json=JOB | LONG).json()
    agent = claim(served, worker)
    agent.started()
    for step in steps:
        saved(agent, worker, step, final=step == steps[-1])
    assert agent.finish(step=steps[-1]).json() == {"state": "succeeded"}
    return str(job["id"])


def going_on(source: str, checkpoint: str | int = "last", **more: Any) -> dict[str, Any]:
    ref = {"job": source, "checkpoint": checkpoint}
    return JOB | {"training": {"max_steps": 30, "batch_size": 8}, "checkpoint": {"resume_from": ref}} | more


def test_a_job_goes_on_from_another_ones_checkpoint(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    source = trained(served, user, worker, 4, 7, 10)
    answer = user.post("/v1/jobs", json=going_on(source, schedule={"type": "wsd", "decay_steps": 5}))
    assert answer.status_code == 202, answer.text
    job = answer.json()["id"]
    agent = claim(served, worker)
    assert agent.claimed["spec"]["checkpoint"]["resume_from"] == {"job": source, "checkpoint": 10}
    (offered,) = agent.claimed["resume"]
    theirs = user.get(f"/v1/jobs/{source}/checkpoints/10").json()["files"]
    assert (offered["step"], offered["files"]) == (10, theirs)
    agent.started(10)
    for step in (12, 14, 16, 18, 20, 22):
        saved(agent, worker, step)
    assert user.post(f"/v1/jobs/{job}/cancel").status_code in (200, 202)
    agent.finish("cancelled_by_user")
    # retention lets go of none that the job began with, so it can begin again
    assert user.post(f"/v1/jobs/{job}/retry", json={"from_start": True}).status_code in (200, 202)
    again = claim(served, worker, agent_id="agent-00000002")
    assert again.claimed["resume"][-1]["step"] == 10
    again.finish()


def test_a_step_may_be_named_and_the_best_is_found(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    source = trained(served, user, worker, 4, 7, 10)
    for which, step in ((7, 7), ("best", 10), ("final", 10)):
        assert user.post("/v1/jobs", json=going_on(source, which)).status_code == 202
        agent = claim(served, worker)
        assert agent.claimed["spec"]["checkpoint"]["resume_from"]["checkpoint"] == step
        assert [each["step"] for each in agent.claimed["resume"]] == [step]
        agent.finish()


def refusal(user: httpx.Client, document: dict[str, Any]) -> list[tuple[str, str]]:
    answer = user.post("/v1/jobs", json=document)
    assert answer.status_code == 422, answer.text
    return [(each["pointer"], each["code"]) for each in answer.json()["errors"]]


def test_what_does_not_fit_is_refused_by_field(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    source = trained(served, user, worker, 10)
    other = {"model": {"type": "mlp", "hidden_sizes": [5]}, "optimizer": {"type": "sgd", "lr": 0.1}}
    found = refusal(user, going_on(source, **other))
    assert ("/model/hidden_sizes", "continued-otherwise") in found
    assert ("/optimizer", "continued-otherwise") in found
    batches = refusal(user, going_on(source, training={"max_steps": 30, "batch_size": 16}))
    assert batches == [("/training/batch_size", "continued-otherwise")]
    seeds = refusal(user, going_on(source, reproducibility={"seed": 7}))
    assert {pointer for pointer, _ in seeds} == {"/reproducibility/seed", "/reproducibility/data_seed"}
    assert refusal(user, going_on(source, training={"max_steps": 10, "batch_size": 8})) == [("/training", "continued-too-short")]
    assert user.post("/v1/plans", json=going_on(source, **other)).status_code == 422


def test_what_is_not_there_is_refused(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    source = trained(served, user, worker, 10)
    nobody = "job_" + "0" * 26
    assert refusal(user, going_on(nobody)) == [("/checkpoint/resume_from/job", "checkpoint-not-found")]
    assert refusal(user, going_on(source, 3)) == [("/checkpoint/resume_from/checkpoint", "checkpoint-not-found")]
    assert refusal(user, going_on("nonsense"))[0][0] == "/checkpoint/resume_from/job"
    assert refusal(user, going_on(source, "first"))[0][0].startswith("/checkpoint/resume_from/checkpoint")
    with served.client("read", "submit", project="elsewhere") as stranger:
        answer = stranger.post("/v1/jobs", json=going_on(source))
        assert answer.status_code in (403, 422)
        assert [each["pointer"] for each in answer.json()["errors"]][:1] != ["/model"]
