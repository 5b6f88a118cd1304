"""The real trainer under a real agent: forked from the warm interpreter it computes what a fresh program computes."""

import io
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from stoker.protocol import BlobFile, DatasetFiles, Resume
from stoker.timers import TimerSettings
from tests.integration.worker.conftest import QUICK, SCALE, Agents
from tests.support.data import PERFORMANCE
from tests.support.fake_server import FakeAttempt, FakeServer, until
from worker.host.hint import Hint
from worker.host.processes import kill_session, session_members
from worker.host.records import read_agent
from worker.node.heartbeat import NodeHeartbeat
from worker.node.warm_keeper import WarmKeeper
from worker.node.warm_socket import WarmConnection
from worker.settings import load_settings

pytestmark = pytest.mark.slow
SPEC: dict[str, Any] = {
    "task": {"type": "classification"},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2}},
    "model": {"type": "mlp", "hidden_sizes": [32, 16], "dropout": 0.2},
    "training": {"max_steps": 60, "batch_size": 32},
    "evaluation": {"interval": {"steps": 20}},
    "logging": {"interval": {"steps": 5}},
    "checkpoint": {"interval": {"steps": 20}},
    "distributed": {"strategy": "ddp", "processes_per_node": 2},
}


@pytest.fixture
def heartbeat(agents: Agents, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeHeartbeat]:
    """A node with the real warm interpreter, ready."""
    for name, value in agents.environment().items():
        if name.startswith("STOKER_"):
            monkeypatch.setenv(name, value)
    agents.state.mkdir(parents=True)
    settings = load_settings()
    heartbeat = NodeHeartbeat(settings, TimerSettings().scaled(SCALE), WarmKeeper(settings))
    heartbeat.start()
    server.wait_for(lambda: server.heartbeats and server.heartbeats[-1].warm, timeout=120)
    yield heartbeat
    heartbeat.stop()
    for home in settings.runs.glob("*"):
        if record := read_agent(home):
            kill_session(record.process)
    with suppress(OSError):
        connection = WarmConnection(settings)
        connection.ask("quit")
        connection.close()


def real(server: FakeServer, name: str, **changes: Any) -> FakeAttempt:
    draw = np.random.default_rng(0)
    y = draw.integers(0, 4, 203)
    files = []
    for stem, values in (("x", (draw.normal(size=(203, 12)) + y[:, None]).astype(np.float32)), ("y", y)):
        out = io.BytesIO()
        np.save(out, values)
        files.append(server.add_blob(out.getvalue(), f"{stem}.npy"))
    attempt = FakeAttempt(name, SPEC | changes, QUICK, devices={"cpus": 2, "gpus": []})
    attempt.datasets = (DatasetFiles(ref="set@1", files=tuple(files)),)
    server.attempts[name] = attempt
    return attempt


def final_tensors(attempt: FakeAttempt) -> dict[str, str]:
    (final,) = [f for f in attempt.of("checkpoint") if f.header["final"]]
    return {file["path"]: file["sha256"] for file in final.header["files"] if file["path"].endswith(".safetensors")}


def learned(attempt: FakeAttempt) -> dict[tuple[int, str], float]:
    """Values by step and key, but for those of the clock. How many rows carry them depends on when they were sent."""
    found: dict[tuple[int, str], float] = {}
    for frame in attempt.of("metrics"):
        rows, keys = frame.header["rows"], frame.header["keys"]
        steps = np.frombuffer(frame.payload, "<i8", rows)
        columns = np.frombuffer(frame.payload, "<f8", offset=8 * rows).reshape(len(keys), rows)
        for key, column in zip(keys, columns, strict=True):
            pairs = zip(steps.tolist(), column.tolist(), strict=True)
            found |= {(step, key): value for step, value in pairs if not math.isnan(value) and not key.endswith(PERFORMANCE)}
    return found


def test_warm_and_fresh_give_the_same_bits(heartbeat: NodeHeartbeat, agents: Agents, server: FakeServer) -> None:
    warm, fresh = real(server, "warm"), real(server, "fresh")
    heartbeat.launcher.launch(Hint("warm", 1))
    server.wait_for(lambda: warm.finish, timeout=90)
    assert warm.finish is not None
    assert (warm.finish.reason, warm.finish.step) == ("completed", 60)
    environment = agents.environment()
    done = subprocess.run([sys.executable, "-m", "worker.agent", "fresh", "1"], env=environment, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert final_tensors(warm)
    assert final_tensors(fresh) == final_tensors(warm)
    assert learned(warm)
    assert learned(fresh) == learned(warm)


def test_a_preempted_run_goes_on_to_the_same_bits(heartbeat: NodeHeartbeat, agents: Agents, server: FakeServer) -> None:
    training = {"max_steps": 1500, "batch_size": 32}
    whole, first, second = (real(server, name, training=training) for name in ("whole", "first", "second"))
    heartbeat.launcher.launch(Hint("whole", 1))
    heartbeat.launcher.launch(Hint("first", 1))
    server.wait_for(lambda: first.of("metrics"), timeout=60)
    first.desired, first.stop_reason = "pause", "paused_by_user"
    server.wait_for(lambda: first.finish, timeout=60)
    assert first.finish is not None
    assert first.finish.reason == "paused_by_user"
    saved = first.of("checkpoint")[-1].header
    assert 0 < saved["step"] < 1500
    second.resume = (Resume(step=saved["step"], files=tuple(BlobFile(**file) for file in saved["files"])),)
    heartbeat.launcher.launch(Hint("second", 1))
    server.wait_for(lambda: whole.finish and second.finish, timeout=120)
    assert second.of("started")[0].header["step"] == saved["step"]
    assert final_tensors(second) == final_tensors(whole)


def test_a_killed_real_agent_leaves_no_rank(heartbeat: NodeHeartbeat, agents: Agents, server: FakeServer) -> None:
    attempt = real(server, "a1", training={"max_steps": 1_000_000, "batch_size": 32})
    heartbeat.launcher.launch(Hint("a1", 1))
    server.wait_for(lambda: attempt.of("metrics"), timeout=60)
    record = read_agent(agents.home(attempt))
    assert record is not None
    assert len(session_members(record.pid)) == 3
    os.kill(record.pid, signal.SIGKILL)
    until(lambda: not session_members(record.pid), timeout=2)
    server.wait_for(lambda: any(not held.alive for beat in server.heartbeats for held in beat.held), timeout=10)
