"""A fake server and real agents, each in its own process and session, all ended with the test."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stoker.protocol import Timers
from tests.support.fake_server import FakeAttempt, FakeServer
from worker.host.processes import ProcessId, identify, kill_session

SCALE = 0.01
QUICK = Timers(report_interval=0.05, lease=60, self_fence=40, gone=50, stop_grace=5)
"""Reports fast, and no timer that ends a run comes into play on a busy machine."""


class Agents:
    """Starts agents as a worker would."""

    def __init__(self, server: FakeServer, state: Path) -> None:
        self.server = server
        self.state = state
        self._started: list[tuple[subprocess.Popen[bytes], ProcessId]] = []

    def home(self, attempt: FakeAttempt) -> Path:
        return self.state / "runs" / attempt.id

    def environment(self) -> dict[str, str]:
        mine = {"STOKER_URL": self.server.url, "STOKER_KEY": "worker-key", "STOKER_STATE_DIR": str(self.state)}
        return {**os.environ, **mine, "STOKER_WORKER_NAME": "w", "STOKER_TIME_SCALE": str(SCALE)}

    def attempt(self, name: str = "a1", timers: Timers = QUICK, ranks: int = 1, **fake: Any) -> FakeAttempt:
        spread: dict[str, Any] = {"strategy": "ddp", "processes_per_node": ranks} if ranks > 1 else {"strategy": "single"}
        spec = {"distributed": spread, "fake": {"steps": 20, **fake}}
        self.server.attempts[name] = FakeAttempt(name, spec, timers)
        return self.server.attempts[name]

    def start(self, attempt: FakeAttempt, how: str = "fork") -> subprocess.Popen[bytes]:
        self.home(attempt).mkdir(parents=True, exist_ok=True)
        with (self.home(attempt) / "agent.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.support.fake_agent", attempt.id, str(attempt.epoch), how]
            process = subprocess.Popen(command, env=self.environment(), stdout=log, stderr=log, start_new_session=True)
        leader = identify(process.pid)
        assert leader is not None
        self._started.append((process, leader))
        return process

    def run(self, attempt: FakeAttempt, how: str = "fork") -> int:
        return self.start(attempt, how).wait(60)

    def close(self) -> None:
        for process, leader in self._started:
            kill_session(leader)
            process.wait()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.close()


@pytest.fixture
def agents(server: FakeServer, tmp_path: Path) -> Iterator[Agents]:
    started = Agents(server, tmp_path / "state")
    yield started
    started.close()
