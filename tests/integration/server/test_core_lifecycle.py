"""A job's life as its user, its worker and its agent see it, on both databases."""

import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import yaml

from tests.support.live import JOB, Live, assigned, beat, claim

pytestmark = pytest.mark.databases("sqlite", "postgresql")


def submit(user: httpx.Client, **more: Any) -> dict[str, Any]:
    answer = user.post("/v1/jobs", json=JOB | more)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def state(user: httpx.Client, job: dict[str, Any]) -> str:
    return str(user.get(f"/v1/jobs/{job['id']}").json()["state"])


def events(user: httpx.Client, job: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = user.get(f"/v1/jobs/{job['id']}/events", params={"limit": 500}).json()["data"]
    return found


def test_from_submit_to_success(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    job = submit(user)
    agent = claim(served, worker)
    assert agent.claimed["job_id"] == job["id"]
    assert agent.claimed["datasets"][0]["ref"] == "toy@1"
    assert agent.started().json()["desired"] == "run"
    assert state(user, job) == "running"
    assert agent.finish(step=10, metrics={"validation/loss": 0.5}).json() == {"state": "succeeded"}
    assert agent.finish(step=10).json() == {"state": "succeeded"}, "a repeated finish gets its first answer"
    log = events(user, job)
    assert [e["seq"] for e in log] == list(range(1, len(log) + 1))
    assert [e["data"]["to"] for e in log if e["type"] == "state"] == ["queued", "starting", "running", "succeeded"]
    assert log[-1]["type"] == "end"
    assert log[-1]["data"]["state"] == "succeeded"


def test_yaml_and_json_are_the_same_experiment(user: httpx.Client) -> None:
    as_yaml = user.post("/v1/jobs", content=yaml.safe_dump(JOB), headers={"Content-Type": "application/yaml"})
    assert as_yaml.status_code == 202, as_yaml.text
    assert as_yaml.json()["spec_digest"] == submit(user)["spec_digest"]
    for job in user.get("/v1/jobs", params={"state": "queued"}).json()["data"]:
        user.post(f"/v1/jobs/{job['id']}/cancel")


def test_twenty_parallel_submits_with_one_key_are_one_job(served: Live, user: httpx.Client) -> None:
    barrier = threading.Barrier(20)

    def once(_: int) -> tuple[int, bytes]:
        with served.client(token=user.headers["authorization"].split()[1]) as http:
            barrier.wait()
            answer = http.post("/v1/jobs", json=JOB | {"name": "twenty"}, headers={"Idempotency-Key": "twenty"})
            return answer.status_code, answer.content

    with ThreadPoolExecutor(20) as pool:
        answers = Counter(pool.map(once, range(20)))
    assert len(answers) == 1
    assert next(iter(answers))[0] == 202
    assert len(user.get("/v1/jobs", params={"name": "twenty"}).json()["data"]) == 1
    other = user.post("/v1/jobs", json=JOB | {"name": "other"}, headers={"Idempotency-Key": "twenty"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    again = user.post("/v1/jobs", json=JOB | {"name": "twenty"}, headers={"Idempotency-Key": "twenty"})
    assert again.headers["idempotency-replayed"] == "true"
    user.post(f"/v1/jobs/{again.json()['id']}/cancel")


def test_a_named_job_is_created_once(user: httpx.Client) -> None:
    first = user.put("/v1/jobs/by-name/nightly", json=JOB)
    second = user.put("/v1/jobs/by-name/nightly", json=JOB)
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["id"] == second.json()["id"]
    changed = user.put("/v1/jobs/by-name/nightly", json=JOB | {"training": {"max_steps": 11, "batch_size": 8}})
    assert (changed.status_code, changed.json()["code"]) == (409, "name_taken")
    user.post(f"/v1/jobs/{first.json()['id']}/cancel")


def test_a_zombie_is_refused_and_changes_nothing(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    job = submit(user)
    zombie = claim(served, worker)
    zombie.started()
    beat(worker, held=[{"attempt_id": zombie.id, "epoch": zombie.epoch, "alive": False}])
    heir = claim(served, worker, agent_id="agent-00000002")
    assert heir.epoch == zombie.epoch + 1
    before = user.get(f"/v1/jobs/{job['id']}").content
    for answer in (
        zombie.report(),
        zombie.report(("phase", {"name": "x", "t": 0})),
        zombie.finish(),
        zombie.report(epoch=heir.epoch),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "stale_attempt")
    assert user.get(f"/v1/jobs/{job['id']}").content == before
    told = beat(worker, held=[{"attempt_id": zombie.id, "epoch": zombie.epoch, "alive": True}])
    assert told["stale"] == [{"attempt_id": zombie.id, "epoch": zombie.epoch}]
    assert heir.finish().json() == {"state": "succeeded"}


def test_a_restarted_machine_gives_its_jobs_back_at_once(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    job = submit(user)
    claim(served, worker)
    boot = uuid.uuid4().hex
    beat(worker, boot=boot)
    assert assigned(worker, boot=boot)["epoch"] == 2
    reasons = [a["reason"] for a in user.get(f"/v1/jobs/{job['id']}/attempts").json()["data"]]
    assert reasons == ["node_lost", None]
    user.post(f"/v1/jobs/{job['id']}/cancel")
    assert state(user, job) == "cancelled", "nobody had claimed it"


def test_cancel_pause_resume_retry(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    job = submit(user)
    agent = claim(served, worker)
    agent.started()
    assert user.post(f"/v1/jobs/{job['id']}/pause").json()["state"] == "pausing"
    assert agent.report().json() == {"acked_through": 1, "desired": "pause", "stop_reason": "paused_by_user", "meeting": None}
    assert agent.finish("paused_by_user", step=3).json() == {"state": "paused"}
    assert user.post(f"/v1/jobs/{job['id']}/resume").json()["state"] == "queued"
    agent = claim(served, worker)
    agent.started(3)
    assert user.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelling"
    assert agent.report().json()["stop_reason"] == "cancelled_by_user"
    assert agent.finish("cancelled_by_user").json() == {"state": "cancelled"}
    refused = user.post(f"/v1/jobs/{job['id']}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "illegal_transition")
    assert user.post(f"/v1/jobs/{job['id']}/retry", params={"from_start": True}).json()["state"] == "queued"
    assert user.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert user.post(f"/v1/jobs/{job['id']}/archive").json()["archived_at"] is not None
    assert job["id"] not in [j["id"] for j in user.get("/v1/jobs").json()["data"]]


def test_a_cancel_that_comes_too_late_leaves_a_success(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    job = submit(user)
    agent = claim(served, worker)
    agent.started()
    user.post(f"/v1/jobs/{job['id']}/cancel")
    assert agent.finish("completed").json() == {"state": "succeeded"}


def test_the_same_failure_at_the_same_step_is_poison(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    job = submit(user)
    for expected in ("queued", "failed"):
        agent = claim(served, worker)
        agent.started()
        assert agent.finish("user_error", step=5, message="boom").json() == {"state": expected}
    found = user.get(f"/v1/jobs/{job['id']}").json()
    assert (found["reason"], found["error"]["fault"]) == ("poison", "user")


def test_a_lack_of_memory_halves_the_micro_batch_and_is_no_poison(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    job = submit(user, training={"max_steps": 10, "batch_size": 32})
    before = user.get(f"/v1/jobs/{job['id']}/spec").json()
    divisions = [(32, 1), (16, 2), (8, 4), (4, 8), (2, 16)]
    for micro, accumulation in divisions:
        agent = claim(served, worker)
        training = agent.claimed["spec"]["training"]
        assert (training["micro_batch_size"], training["gradient_accumulation_steps"]) == (micro, accumulation)
        agent.started()
        assert agent.finish("cuda_oom", step=5, message="out of memory").json() == {"state": "queued"}
    agent = claim(served, worker)
    assert agent.claimed["spec"]["training"]["micro_batch_size"] == 2, "four times at most"
    assert user.get(f"/v1/jobs/{job['id']}/spec").json() == before, "the spec stays what was submitted"
    told = [e["data"]["data"] for e in events(user, job) if e["data"].get("code") == "micro_batch_halved"]
    assert [(each["micro_batch_size"], each["halvings"]) for each in told] == [(16, 1), (8, 2), (4, 3), (2, 4)]
    tried = user.get(f"/v1/jobs/{job['id']}/attempts").json()["data"]
    assert [each["overrides"].get("training", {}).get("micro_batch_size") for each in tried] == [None, 16, 8, 4, 2, 2]
    assert agent.finish("cuda_oom", step=5).json() == {"state": "failed"}
    assert user.get(f"/v1/jobs/{job['id']}").json()["reason"] == "poison", "no remedy is left, and it fails the same way again"


def test_a_full_disk_is_tried_once_more_and_then_waited_for(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    job = submit(user)
    for expected in ("queued", "paused"):
        agent = claim(served, worker)
        agent.started()
        assert agent.finish("disk_full", step=5, message="No space left on device").json() == {"state": expected}
    found = user.get(f"/v1/jobs/{job['id']}").json()
    assert found["reason"] == "disk_full"
    paused = [e["data"] for e in events(user, job) if e["type"] == "state" and e["data"]["to"] == "paused"]
    assert "stoker resume" in paused[-1]["message"]
    assert user.post(f"/v1/jobs/{job['id']}/resume").status_code == 202
    agent = claim(served, worker)
    agent.started()
    assert agent.finish("disk_full", step=5).json() == {"state": "queued"}, "somebody made room, so it has another try"
    agent = claim(served, worker)
    assert agent.finish().json() == {"state": "succeeded"}


def test_points_of_a_stretch_that_was_rolled_back_no_longer_count(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    job = submit(user)
    agent = claim(served, worker)
    agent.started()
    agent.measure({1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0})
    back = {"level": "warning", "code": "rolled_back", "message": "…", "step": 2, "data": {"from": 4, "to": 2}}
    assert agent.report(("notice", back)).status_code == 200
    agent.measure({3: 30.0})
    series = user.get(f"/v1/jobs/{job['id']}/metrics").json()["keys"]["train/loss"]
    assert (series["steps"], series["last"]) == ([1, 2, 3], [1.0, 2.0, 30.0])
    assert user.get(f"/v1/jobs/{job['id']}").json()["metrics"]["train/loss"] == 30.0
    agent.finish(step=10)


def test_finish_waits_for_every_frame_and_gaps_are_not_crossed(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    submit(user)
    agent = claim(served, worker)
    agent.started()
    refused = agent.finish(last_seq=2)
    assert (refused.status_code, refused.json()["code"]) == (409, "frames_missing")
    agent.seq = 2  # frame 3 without frame 2
    assert agent.report(("phase", {"name": "training", "t": 0.0})).json()["acked_through"] == 1
    assert (
        agent.report(("phase", {"name": "loading_data", "t": 0.0}), ("phase", {"name": "training", "t": 0.0})).json()[
            "acked_through"
        ]
        == 3
    )
    missing = {"step": 1, "metrics": {}, "final": False, "files": [{"path": "m", "bytes": 3, "sha256": "0" * 64}]}
    refused = agent.report(("checkpoint", missing))
    assert (refused.status_code, refused.json()["code"]) == (409, "blob_missing")
    assert "0" * 64 in refused.json()["detail"]
    assert agent.report().json()["acked_through"] == 3
    assert agent.report(epoch=agent.epoch + 1).status_code == 409
    agent.finish()


def test_drain_moves_work_away_without_counting_it(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    job = submit(user)
    agent = claim(served, worker)
    agent.started()
    assert user.post("/v1/workers/node/drain").json()["state"] == "draining"
    assert agent.report().json()["stop_reason"] == "drained"
    assert agent.finish("drained", step=2).json() == {"state": "queued"}
    assert beat(worker)["assigned"] == []
    assert "draining" in user.get(f"/v1/jobs/{job['id']}/why").json()["message"]
    assert user.post("/v1/workers/node/resume").json()["state"] == "active"
    claim(served, worker).finish()
    assert state(user, job) == "succeeded"


def test_gates_decide_the_verdict_and_the_outcome(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    job = user.post("/v1/jobs", json=JOB, params={"require": "validation/accuracy>=0.9"}).json()
    claim(served, worker).finish(metrics={"validation/accuracy": 0.5})
    assert user.get(f"/v1/jobs/{job['id']}").json()["outcome"] == "gate_failed"
    assert user.get(f"/v1/jobs/{job['id']}/verdict").json()["passed"] is False
    assert user.get(f"/v1/jobs/{job['id']}/verdict", params={"require": "validation/accuracy>0.4"}).json()["passed"] is True
    assert user.get("/v1/jobs", params={"metric.validation/accuracy<": "0.6"}).json()["data"][0]["id"] == job["id"]
    assert user.post("/v1/jobs", json=JOB, params={"require": "accuracy is good"}).json()["code"] == "gate_invalid"


def test_edits_need_the_version_they_are_based_on(user: httpx.Client) -> None:
    job = submit(user)
    path = f"/v1/jobs/{job['id']}"
    tag = user.get(path).headers["etag"]
    assert user.get(path, headers={"If-None-Match": tag}).status_code == 304
    assert user.patch(path, json={"priority": 3}).status_code == 428
    edited = user.patch(path, json={"labels": {"team": "a"}}, headers={"If-Match": tag})
    assert edited.json()["labels"] == {"team": "a"}
    assert user.patch(path, json={"priority": 3}, headers={"If-Match": tag}).status_code == 412
    assert [j["id"] for j in user.get("/v1/jobs", params={"label.team": "a"}).json()["data"]] == [job["id"]]
    user.post(path + "/cancel")


def test_pages_hold_each_job_once(user: httpx.Client) -> None:
    made = [submit(user, name="paged")["id"] for _ in range(5)]
    seen, after = [], None
    while True:
        page = user.get("/v1/jobs", params={"name": "paged", "limit": 2} | ({"after": after} if after else {})).json()
        seen += [j["id"] for j in page["data"]]
        after = page["next"]
        if not page["has_more"]:
            break
    assert seen == sorted(made, reverse=True)
    for job in made:
        user.post(f"/v1/jobs/{job}/cancel")
