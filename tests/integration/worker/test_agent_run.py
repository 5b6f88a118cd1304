"""An agent from claim to finish, with a fake trainer and a fake server."""

import json
from array import array

import pytest

from tests.integration.worker.conftest import Agents
from tests.support.fake_server import FakeServer


@pytest.mark.parametrize("how", ["fork", "fresh"])
def test_a_run_arrives_whole_and_in_order(agents: Agents, server: FakeServer, how: str) -> None:
    attempt = agents.attempt(ranks=2, steps=20, checkpoint_every=10)
    assert agents.run(attempt, how) == 0
    assert attempt.finish is not None
    assert (attempt.finish.reason, attempt.finish.step, attempt.finish.exit_code) == ("completed", 20, 0)
    assert attempt.finish.metrics == {"train/sum": 210.0}
    assert attempt.finish.last_seq == attempt.acked == len(attempt.frames)
    sums: dict[int, float] = {}
    for frame in attempt.of("metrics"):
        rows, keys = frame.header["rows"], frame.header["keys"]
        steps = array("q", frame.payload[: 8 * rows])
        at = 8 * rows * (1 + keys.index("train/sum"))
        sums.update(zip(steps, array("d", frame.payload[at : at + 8 * rows]), strict=True))
    assert sums == {step: step * (step + 1) / 2 for step in range(1, 21)}
    for rank in (0, 1):
        text = b"".join(f.payload for f in attempt.of("logs") if f.header["rank"] == rank and f.header["stream"] == "out")
        assert text.decode().splitlines() == [f"rank {rank} step {step}" for step in range(1, 21)]


def test_every_metric_up_to_a_checkpoint_is_numbered_before_it(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(steps=30, checkpoint_every=5, step_seconds=0.005)
    agents.run(attempt)
    checkpoints = attempt.of("checkpoint")
    assert [f.header["step"] for f in checkpoints] == [5, 10, 15, 20, 25, 30, 30]
    for checkpoint in checkpoints:
        before = [f.header["last_step"] for f in attempt.of("metrics") if f.seq < checkpoint.seq]
        assert max(before) >= checkpoint.header["step"]
        for file in checkpoint.header["files"]:
            assert len(server.blobs[file["sha256"]]) == file["bytes"]


def test_a_finished_workspace_keeps_logs_and_nothing_large(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(checkpoint_every=5)
    agents.run(attempt)
    left = {path.name for path in agents.home(attempt).iterdir()}
    assert {"log-rank0.out", "events-rank0.jsonl", "spec.json", "ended.json"} <= left
    assert left.isdisjoint({"data", "checkpoints", "spool", "outbox", "claim.json"})
    assert json.loads((agents.home(attempt) / "ended.json").read_text()) == {"reason": "completed"}
