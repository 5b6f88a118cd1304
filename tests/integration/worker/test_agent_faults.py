"""What an agent does when the network, the server or its ranks misbehave (rows 17-26 and 58-62 of the fault matrix)."""

import itertools
import os
import shutil
import signal
from pathlib import Path

import pytest

from stoker.protocol import Timers
from tests.integration.worker.conftest import Agents
from tests.support.fake_server import FakeServer, Fault, until
from worker.host.processes import ProcessId, session_members
from worker.host.records import unfinished

FENCED = Timers(report_interval=0.05, lease=4.0, self_fence=1.5, gone=2.5, stop_grace=1.0)


def ranks_of(agent: int) -> set[ProcessId]:
    return {member for member in session_members(agent) if member.pid != agent}


def metric_rows(agents: Agents) -> int:
    return sum(frame.header["rows"] for a in agents.server.attempts.values() for frame in a.of("metrics"))


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        *itertools.product(["claim", "report", "finish"], ["lose_answer", "cut_request", "unavailable", "garbage"]),
        *itertools.product(["blob_head", "blob_put"], ["lose_answer", "cut_request", "unavailable"]),
    ],
)
def test_a_fault_on_any_route_loses_and_doubles_nothing(agents: Agents, server: FakeServer, route: str, fault: Fault) -> None:
    server.faults[route] = [fault, fault]
    attempt = agents.attempt(steps=20, checkpoint_every=10)
    assert agents.run(attempt) == 0
    assert attempt.finish is not None
    assert attempt.finish.reason == "completed"
    assert metric_rows(agents) == 20
    assert [f.header["step"] for f in attempt.of("checkpoint")] == [10, 20, 20]
    assert attempt.acked == attempt.finish.last_seq
    assert server.requests[route] >= 3


def test_a_spool_drains_after_the_server_was_away(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(steps=60, step_seconds=0.01, checkpoint_every=20)
    agent = agents.start(attempt)
    server.wait_for(lambda: attempt.of("started"))
    with server.outage():
        before = metric_rows(agents)
        journal = agents.home(attempt) / "events-rank0.jsonl"
        until(lambda: b'"finished"' in journal.read_bytes())
        assert metric_rows(agents) == before
    assert agent.wait(60) == 0
    assert metric_rows(agents) == 60
    assert attempt.finish is not None
    assert attempt.finish.reason == "completed"


def test_an_upload_goes_on_where_it_was_cut(agents: Agents, server: FakeServer) -> None:
    server.cut_upload_after = 300_000
    attempt = agents.attempt(steps=5, padding=1_000_000)
    assert agents.run(attempt) == 0
    (checkpoint,) = attempt.of("checkpoint")
    assert all(file["sha256"] in server.blobs for file in checkpoint.header["files"])


def test_409_kills_the_group_and_changes_nothing(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(steps=10_000, step_seconds=0.01, ranks=2, ignore_sigterm=True)
    agent = agents.start(attempt)
    server.wait_for(lambda: attempt.of("metrics"))
    ranks = ranks_of(agent.pid)
    assert len(ranks) == 2
    attempt.superseded = True
    frames = dict(attempt.frames)
    assert agent.wait(30) == 0
    assert not any(rank.alive() for rank in ranks)
    assert attempt.frames == frames
    assert attempt.finish is None
    assert attempt.refused >= 1


def test_a_zombie_asks_before_it_says_anything(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(timers=FENCED, steps=10_000, step_seconds=0.01, ignore_sigterm=True)
    agent = agents.start(attempt)
    server.wait_for(lambda: attempt.of("metrics"))
    ranks = ranks_of(agent.pid)
    os.kill(agent.pid, signal.SIGSTOP)
    journal = agents.home(attempt) / "events-rank0.jsonl"
    lines = len(journal.read_bytes().splitlines())
    until(lambda: len(journal.read_bytes().splitlines()) > lines + FENCED.lease / 0.01, timeout=60)
    attempt.superseded = True
    frames = dict(attempt.frames)
    os.kill(agent.pid, signal.SIGCONT)
    assert agent.wait(30) == 0
    assert not any(rank.alive() for rank in ranks)
    assert attempt.frames == frames
    assert attempt.finish is None


def test_a_zombie_whose_attempt_is_still_its_own_ends_as_fenced(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(timers=FENCED, steps=10_000, step_seconds=0.01, ignore_sigterm=True)
    agent = agents.start(attempt)
    server.wait_for(lambda: attempt.of("metrics"))
    os.kill(agent.pid, signal.SIGSTOP)
    journal = agents.home(attempt) / "events-rank0.jsonl"
    lines = len(journal.read_bytes().splitlines())
    until(lambda: len(journal.read_bytes().splitlines()) > lines + FENCED.lease / 0.01, timeout=60)
    os.kill(agent.pid, signal.SIGCONT)
    assert agent.wait(30) == 0
    assert attempt.finish is not None
    assert attempt.finish.reason == "self_fenced"


def test_an_agent_cut_off_saves_and_stops_before_its_lease_ends(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(timers=FENCED, steps=10_000, step_seconds=0.01)
    agent = agents.start(attempt)
    server.wait_for(lambda: attempt.of("metrics"))
    (rank,) = ranks_of(agent.pid)
    with server.outage():
        until(lambda: not rank.alive())
        assert agent.poll() is None
    assert agent.wait(30) == 0
    assert attempt.finish is not None
    assert attempt.finish.reason == "self_fenced"
    (checkpoint,) = attempt.of("checkpoint")
    assert checkpoint.header["step"] == attempt.finish.step


def test_one_that_does_not_stop_is_killed_before_its_lease_ends(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(timers=FENCED, steps=10_000, step_seconds=0.01, ignore_sigterm=True)
    agent = agents.start(attempt)
    server.wait_for(lambda: attempt.of("metrics"))
    (rank,) = ranks_of(agent.pid)
    with server.outage():
        until(lambda: not rank.alive())
    assert agent.wait(30) == 0
    assert attempt.finish is not None
    assert attempt.finish.reason == "self_fenced"


@pytest.mark.parametrize("how", ["fork", "fresh"])
def test_no_rank_outlives_its_agent(agents: Agents, server: FakeServer, how: str) -> None:
    attempt = agents.attempt(steps=10_000, step_seconds=0.01, ranks=3, ignore_sigterm=True)
    agent = agents.start(attempt, how)
    server.wait_for(lambda: attempt.of("metrics"))
    assert len(ranks_of(agent.pid)) == 3
    os.kill(agent.pid, signal.SIGKILL)
    agent.wait()
    until(lambda: not session_members(agent.pid), timeout=1.0)


@pytest.mark.parametrize("victim", [0, 1])
def test_one_rank_killed_ends_the_others(agents: Agents, server: FakeServer, victim: int) -> None:
    fault = {"rank": victim, "step": 5, "kind": "kill"}
    attempt = agents.attempt(steps=10_000, step_seconds=0.01, ranks=2, ignore_sigterm=True, fault=fault)
    assert agents.run(attempt) == 0
    assert attempt.finish is not None
    assert (attempt.finish.reason, attempt.finish.exit_code) == ("rank_lost", 137)
    assert f"rank {victim}" in attempt.finish.message


def test_a_rank_that_raises_is_quoted(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(steps=10_000, step_seconds=0.01, ranks=2, fault={"rank": 1, "step": 3, "kind": "raise"})
    assert agents.run(attempt) == 0
    assert attempt.finish is not None
    assert (attempt.finish.reason, attempt.finish.exit_code) == ("user_error", 1)
    assert "the model is on fire" in attempt.finish.message


def test_sigterm_to_the_agent_is_a_preemption(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(steps=10_000, step_seconds=0.01, ranks=2)
    agent = agents.start(attempt)
    server.wait_for(lambda: attempt.of("metrics"))
    agent.terminate()
    assert agent.wait(30) == 0
    assert attempt.finish is not None
    assert (attempt.finish.reason, attempt.finish.exit_code) == ("preempted", 75)
    assert attempt.of("checkpoint")[-1].header["step"] == attempt.finish.step


@pytest.mark.parametrize(
    ("desired", "said", "reason"),
    [
        ("pause", "paused_by_user", "paused_by_user"),
        ("cancel", "cancelled_by_user", "cancelled_by_user"),
        ("run", "time_limit", "time_limit"),
        ("pause", "drained", "drained"),
        ("cancel", None, "cancelled_by_user"),
    ],
)
def test_the_servers_wish_stops_a_run_at_a_checkpoint(
    agents: Agents, server: FakeServer, desired: str, said: str | None, reason: str
) -> None:
    attempt = agents.attempt(steps=10_000, step_seconds=0.01)
    agent = agents.start(attempt)
    server.wait_for(lambda: attempt.of("metrics"))
    attempt.desired, attempt.stop_reason = desired, said
    assert agent.wait(30) == 0
    assert attempt.finish is not None
    assert attempt.finish.reason == reason
    assert [f.header["step"] for f in attempt.of("checkpoint")] == [attempt.finish.step]


def test_a_run_that_does_not_heed_a_cancel_is_killed_after_the_grace(agents: Agents, server: FakeServer) -> None:
    timers = Timers(report_interval=0.05, lease=60, self_fence=40, gone=50, stop_grace=0.5)
    attempt = agents.attempt(timers=timers, steps=100_000, step_seconds=0.01, ranks=2, ignore_sigterm=True)
    agent = agents.start(attempt)
    server.wait_for(lambda: attempt.of("metrics"))
    attempt.desired = "cancel"
    assert agent.wait(30) == 0
    assert attempt.finish is not None
    assert attempt.finish.reason == "cancelled_by_user"


def test_a_flood_of_output_is_cut_and_announced(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(steps=10, fault={"rank": 0, "step": 2, "kind": "flood", "megabytes": 60})
    assert agents.run(attempt) == 0
    assert attempt.finish is not None
    assert attempt.finish.reason == "completed"
    kept = [f for f in attempt.of("logs") if f.header["stream"] == "out"]
    assert sum(len(f.payload) for f in kept) < 10 << 20
    assert kept[-1].payload.endswith(b"rank 0 step 10\n")
    for frame in kept:
        end = frame.header["offset"] + len(frame.payload)
        assert not [f for f in kept if frame.header["offset"] < f.header["offset"] < end], "chunks overlap"
    assert "logs_dropped" in {f.header["code"] for f in attempt.of("notice")}


def test_a_second_agent_for_the_same_attempt_leaves(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(steps=10_000, step_seconds=0.01)
    first = agents.start(attempt)
    server.wait_for(lambda: attempt.of("metrics"))
    assert agents.run(attempt) == 1
    assert first.poll() is None
    assert server.requests["claim"] == 1


def test_an_attempt_of_another_is_not_touched(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt()
    attempt.agent_id = "somebody-else"
    assert agents.run(attempt) == 1
    assert attempt.frames == {}
    assert not Path(agents.home(attempt) / "spec.json").exists()


def test_an_agent_that_cannot_report_its_end_is_left_to_be_found_dead(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(steps=10_000, step_seconds=0.01, ranks=2)
    agent = agents.start(attempt)
    server.wait_for(lambda: attempt.of("metrics"))
    ranks = ranks_of(agent.pid)
    shutil.rmtree(agents.home(attempt) / "spool")
    assert agent.wait(30) == 1
    assert not any(rank.alive() for rank in ranks)
    assert attempt.finish is None
    assert [record.attempt_id for _, record in unfinished(agents.state / "runs")] == [attempt.id]


def test_a_failed_start_is_told(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt()
    attempt.spec["distributed"] = {"strategy": "of the future"}
    assert agents.run(attempt) == 0
    assert attempt.finish is not None
    assert attempt.finish.reason == "spec_error"
