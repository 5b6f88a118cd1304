"""A node: hints and heartbeats start agents once, deaths are told, what is no longer ours is ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from stoker.protocol import Assignment
from stoker.timers import TimerSettings
from tests.integration.worker.conftest import SCALE, Agents
from tests.support.fake_server import FakeAttempt, FakeServer, until
from worker.host.hint import Hint
from worker.host.processes import ProcessId, kill_session, session_members
from worker.host.records import read_agent
from worker.node.heartbeat import NodeHeartbeat
from worker.node.warm_keeper import WarmKeeper
from worker.node.warm_socket import WarmConnection
from worker.settings import WorkerSettings, load_settings

FAKE_WARM = (sys.executable, "-m", "tests.support.fake_warm")


class Node:
    """A heartbeat in this process, with a warm interpreter in another."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.keeper = WarmKeeper(settings, FAKE_WARM)
        self.heartbeat = NodeHeartbeat(settings, TimerSettings().scaled(SCALE), self.keeper)
        self._met: set[ProcessId] = set()

    def agent(self, attempt: FakeAttempt) -> ProcessId:
        until(lambda: read_agent(self.settings.runs / attempt.id))
        record = read_agent(self.settings.runs / attempt.id)
        assert record is not None
        self._met.add(record.process)
        return record.process

    def close(self) -> None:
        self.heartbeat.stop()
        for process in self._met:
            kill_session(process)
        with suppress(OSError):
            connection = WarmConnection(self.settings)
            connection.ask("quit")
            connection.close()


@pytest.fixture
def node(agents: Agents, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    for name, value in agents.environment().items():
        if name.startswith("STOKER_"):
            monkeypatch.setenv(name, value)
    agents.state.mkdir(parents=True)
    started = Node(load_settings())
    yield started
    started.close()


def warmed(node: Node, server: FakeServer) -> Node:
    node.heartbeat.start()
    server.wait_for(lambda: server.heartbeats and server.heartbeats[-1].warm)
    return node


def test_an_assignment_in_a_heartbeats_answer_is_launched_once(node: Node, agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(steps=5)
    server.assigned.append(Assignment(attempt_id=attempt.id, epoch=1))
    warmed(node, server)
    server.wait_for(lambda: attempt.finish)
    assert server.requests["claim"] == 1
    assert not node.heartbeat.launcher.launch(Hint(attempt.id, 1))


def test_many_hints_start_one_agent(node: Node, agents: Agents, server: FakeServer) -> None:
    warmed(node, server)
    attempt = agents.attempt(steps=10_000, step_seconds=0.01)
    assert [node.heartbeat.launcher.launch(Hint(attempt.id, 1)) for _ in range(20)] == [True] + [False] * 19
    server.wait_for(lambda: attempt.of("metrics"))
    leader = node.agent(attempt)
    assert server.requests["claim"] == 1
    assert len(session_members(leader.pid)) == 2


def test_an_agent_outlives_the_warm_interpreter_and_the_node(node: Node, agents: Agents, server: FakeServer) -> None:
    warmed(node, server)
    attempt = agents.attempt(steps=300, step_seconds=0.01)
    node.heartbeat.launcher.launch(Hint(attempt.id, 1))
    server.wait_for(lambda: attempt.of("metrics"))
    agent = node.agent(attempt)
    connection = WarmConnection(node.settings)
    os.kill(connection.ask("attach").pid, signal.SIGKILL)
    connection.close()
    node.heartbeat.stop()
    server.wait_for(lambda: attempt.finish)
    assert attempt.finish is not None
    assert attempt.finish.reason == "completed"
    until(lambda: not agent.alive())


def test_a_dead_agent_is_told_once_with_its_last_words_sent(node: Node, agents: Agents, server: FakeServer) -> None:
    warmed(node, server)
    attempt = agents.attempt(steps=10_000, step_seconds=0.01, ranks=2, ignore_sigterm=True)
    node.heartbeat.launcher.launch(Hint(attempt.id, 1))
    server.wait_for(lambda: attempt.of("metrics"))
    agent = node.agent(attempt)
    server.interval = 30.0
    beats = len(server.heartbeats)
    server.wait_for(lambda: len(server.heartbeats) > beats)
    agent.send(signal.SIGKILL)
    server.wait_for(lambda: any(not held.alive for beat in server.heartbeats for held in beat.held), timeout=5)
    assert not session_members(agent.pid)
    until(lambda: (node.settings.runs / attempt.id / "ended.json").exists())
    server.interval = 0.1
    node.heartbeat.stop()
    told = [held for beat in server.heartbeats for held in beat.held if not held.alive]
    assert [(held.attempt_id, held.epoch) for held in told] == [(attempt.id, 1)]


def test_what_is_no_longer_ours_is_killed(node: Node, agents: Agents, server: FakeServer) -> None:
    warmed(node, server)
    attempt = agents.attempt(steps=10_000, step_seconds=0.01, ranks=2, ignore_sigterm=True)
    node.heartbeat.launcher.launch(Hint(attempt.id, 1))
    server.wait_for(lambda: attempt.of("metrics"))
    agent = node.agent(attempt)
    os.kill(agent.pid, signal.SIGSTOP)
    server.stale.append(Assignment(attempt_id=attempt.id, epoch=1))
    until(lambda: not session_members(agent.pid), timeout=10)


def test_an_agent_that_never_came_is_launched_again(
    node: Node, agents: Agents, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = agents.attempt(steps=3)
    agents.home(attempt).mkdir(parents=True)
    marker = agents.home(attempt) / "launch-1-0"
    marker.touch()
    os.utime(marker, (1, 1))
    server.assigned.append(Assignment(attempt_id=attempt.id, epoch=1))
    warmed(node, server)
    server.wait_for(lambda: attempt.finish)
    assert server.requests["claim"] == 1


def test_a_warm_interpreter_of_other_code_is_replaced(node: Node, agents: Agents, server: FakeServer) -> None:
    older = subprocess.Popen(FAKE_WARM, env={**os.environ, "STOKER_KEY": "another"}, stderr=subprocess.DEVNULL)
    until(lambda: _pid_of_warm(node.settings) == older.pid)
    warmed(node, server)
    assert older.wait(10) == 0
    assert _pid_of_warm(node.settings) != older.pid


def test_forks_hold_no_file_of_the_interpreter_they_came_from(node: Node, agents: Agents, server: FakeServer) -> None:
    warmed(node, server)
    attempt = agents.attempt(steps=10_000, step_seconds=0.01)
    node.heartbeat.launcher.launch(Hint(attempt.id, 1))
    server.wait_for(lambda: attempt.of("metrics"))
    agent = node.agent(attempt)
    (rank,) = [member for member in session_members(agent.pid) if member != agent]
    open_files = {os.readlink(path) for path in Path(f"/proc/{rank.pid}/fd").iterdir()}
    assert not [name for name in open_files if name.startswith("socket:")]
    home = str(agents.home(attempt))
    assert {name for name in open_files if not name.startswith(home)} <= {os.devnull}
    environment = Path(f"/proc/{agent.pid}/stat").read_text().rpartition(")")[2].split()
    assert int(environment[3]) == agent.pid, "the agent leads a session of its own"


def _pid_of_warm(settings: WorkerSettings) -> int:
    with suppress(OSError):
        connection = WarmConnection(settings)
        try:
            return connection.ask("attach").pid
        finally:
            connection.close()
    return 0


def test_the_node_beats_on_while_the_server_is_away(node: Node, agents: Agents, server: FakeServer) -> None:
    warmed(node, server)
    with server.outage():
        before = server.requests["heartbeat"]
        until(lambda: server.requests["heartbeat"] >= before + 3)
    beats = len(server.heartbeats)
    server.wait_for(lambda: len(server.heartbeats) > beats)
