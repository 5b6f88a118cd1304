"""Promises that need time to pass: leases, limits, deadlines, waiting, rates. Live servers with their timers scaled."""

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from server.attempts.store import ATTEMPTS
from server.db import Database, utcnow
from stoker.reasons import INFRA_CAP
from tests.support.live import JOB, Agent, Live, assigned, beat, claim, live, upload_toy
from tests.support.oracle import judge
from tests.support.stack import until

SCALE = 0.003
"""The lease is 0.9 s, a look of the reaper 15 ms."""


@contextlib.contextmanager
def quick(
    home: Path, *, upload: bool = True, scale: float = SCALE, **settings: Any
) -> Iterator[tuple[Live, httpx.Client, httpx.Client]]:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(live(home, scale=scale, **settings))
        user = stack.enter_context(server.client("read", "submit", "admin"))
        worker = stack.enter_context(server.client("worker"))
        if upload:
            upload_toy(user)
        beat(worker)
        yield server, user, worker


def state(user: httpx.Client, job: str) -> str:
    return str(user.get(f"/v1/jobs/{job}").json()["state"])


def submit(user: httpx.Client, **more: Any) -> str:
    answer = user.post("/v1/jobs", json=JOB | more)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def attempts(user: httpx.Client, job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = user.get(f"/v1/jobs/{job}/attempts").json()["data"]
    return found


def test_silence_costs_the_lease_and_the_job_goes_on(tmp_path: Path) -> None:
    with quick(tmp_path) as (server, user, worker):
        job = submit(user)
        silent = claim(server, worker)
        silent.started()
        placed = attempts(user, job)[0]["placed_at"]
        until(lambda: attempts(user, job)[0]["state"] == "ended", timeout=30, what="reaped")
        first = attempts(user, job)[0]
        assert first["reason"] == "node_lost"
        assert first["ended_at"] > placed
        heir = claim(server, worker, agent_id="agent-00000002")
        assert heir.epoch == silent.epoch + 1
        for answer in (silent.report(), silent.finish()):
            assert (answer.status_code, answer.json()["code"]) == (409, "stale_attempt")
        assert heir.finish().json() == {"state": "succeeded"}


def test_an_agent_that_speaks_keeps_its_lease(tmp_path: Path) -> None:
    with quick(tmp_path) as (server, user, worker):
        job = submit(user)
        agent = claim(server, worker)
        agent.started()
        spoken = time.monotonic()
        while time.monotonic() < spoken + 2.5 * 300 * SCALE:
            assert agent.report().status_code == 200
        assert len(attempts(user, job)) == 1
        assert agent.finish().json() == {"state": "succeeded"}


def test_a_server_that_was_away_forgives_one_lease(tmp_path: Path) -> None:
    with quick(tmp_path) as (server, user, worker):
        job = submit(user)
        agent = claim(server, worker)
        agent.started()
    db = Database(server.settings.database, readers=1)
    long_ago = utcnow() - timedelta(days=1)
    db.write_now(lambda s: s.execute(update(ATTEMPTS).values(lease_expires_at=long_ago)) and None)
    db.close()
    with quick(tmp_path, upload=False, scale=0.02) as (server, user, _):
        again = Agent(server.url, agent.id, agent.epoch, agent.claimed, agent.seq)
        assert state(user, job) == "running", "the silence was the server's"
        assert again.report().status_code == 200
        assert again.finish().json() == {"state": "succeeded"}


@pytest.mark.parametrize("obeys", [True, False])
def test_a_time_limit_stops_at_a_checkpoint_or_cuts_off(tmp_path: Path, obeys: bool) -> None:
    with quick(tmp_path) as (server, user, worker):
        job = submit(user, resources={"time_limit_seconds": 60})
        agent = claim(server, worker)
        agent.started()
        db = Database(server.settings.database, readers=1)
        db.write_now(lambda s: s.execute(update(ATTEMPTS).values(started_at=utcnow() - timedelta(seconds=61))) and None)
        db.close()
        told = until(lambda: stopping(agent), timeout=20, what="told to stop")
        assert told == "time_limit"
        if obeys:
            assert agent.finish("time_limit", step=5).json() == {"state": "failed"}
        else:  # it keeps its lease but never stops
            until(lambda: agent.report().status_code == 409, timeout=20, what="cut off")
        found = user.get(f"/v1/jobs/{job}").json()
        assert (found["state"], found["reason"]) == ("failed", "time_limit")


def stopping(agent: Agent) -> Any:
    answer = agent.report()
    return answer.status_code == 200 and answer.json()["stop_reason"]


@pytest.mark.parametrize("how", ["cancel", "pause", "drain"])
def test_a_stop_that_is_not_obeyed_has_a_deadline(tmp_path: Path, how: str) -> None:
    ends = {"cancel": "cancelled", "pause": "paused", "drain": "queued"}
    with quick(tmp_path) as (server, user, worker):
        job = submit(user)
        agent = claim(server, worker)
        agent.started()
        user.post("/v1/workers/node/drain" if how == "drain" else f"/v1/jobs/{job}/{how}").raise_for_status()
        until(lambda: agent.report().status_code == 409, timeout=30, what="cut off")
        assert state(user, job) == ends[how]
        assert attempts(user, job)[0]["state"] == "ended"


def test_waiting_answers_at_the_end_or_in_time(tmp_path: Path) -> None:
    with quick(tmp_path, scale=0.1) as (server, user, worker):
        job = submit(user)
        waited = user.get(f"/v1/jobs/{job}", params={"wait": "terminal", "timeout": 0.1})
        assert waited.json()["state"] in ("queued", "starting")
        assert waited.headers["etag"]
        same = {"If-None-Match": user.get(f"/v1/jobs/{job}").headers["etag"]}
        agent = claim(server, worker)
        threading.Thread(target=lambda: agent.finish("completed")).start()
        ended = user.get(f"/v1/jobs/{job}", params={"wait": "terminal", "timeout": 25}, headers=same)
        assert (ended.status_code, ended.json()["state"]) == (200, "succeeded")
        tag = {"If-None-Match": ended.headers["etag"]}
        assert user.get(f"/v1/jobs/{job}", params={"wait": "terminal", "timeout": 25}, headers=tag).status_code == 304


def test_what_no_worker_can_hold_stays_and_says_so(tmp_path: Path) -> None:
    """It is not failed: a larger worker may come."""
    with quick(tmp_path, scale=0.1) as (_, user, worker):
        job = submit(user, resources={"cpus": 64, "memory_gb": 1})
        why = user.get(f"/v1/jobs/{job}/why").json()
        assert why["state"] == "queued"
        assert "No known worker is large enough" in why["message"]
        assert why["workers"][0]["missing"]["cpus"] == 60
        assert assigned(worker, "big", cpus=64)["epoch"] == 1


def test_failures_count_and_losses_have_a_cap(tmp_path: Path) -> None:
    with quick(tmp_path, scale=0.001) as (server, user, worker):
        job = submit(user, resources={"max_retries": 2})
        ends = []
        for step in range(3):
            ends.append(claim(server, worker).finish("user_error", step=step + 1).json()["state"])
        assert ends == ["queued", "queued", "failed"]
        assert user.get(f"/v1/jobs/{job}").json()["reason"] == "user_error"
        assert len(attempts(user, job)) == 3
        again = user.post(f"/v1/jobs/{job}/retry", json={"from_start": True}).json()
        assert (again["state"], again["progress"]["step"]) == ("queued", 0)
        lost = [claim(server, worker).finish("rank_lost").json()["state"] for _ in range(INFRA_CAP + 1)]
        assert lost == ["queued"] * INFRA_CAP + ["failed"]
        assert user.get(f"/v1/jobs/{job}").json()["error"]["fault"] == "infra"


def test_a_key_that_asks_too_often_waits_and_workers_do_not(tmp_path: Path) -> None:
    with quick(tmp_path, scale=0.1, requests_per_second=1.0, request_burst=30) as (_, user, worker):
        answers = [user.get("/v1/workers") for _ in range(60)]
        refused = [a for a in answers if a.status_code == 429]
        assert refused
        assert answers[0].status_code == 200
        judge(refused[0], [])
        assert (refused[0].json()["code"], refused[0].headers["retry-after"]) == ("rate_limited", "1")
        for _ in range(60):
            beat(worker)
