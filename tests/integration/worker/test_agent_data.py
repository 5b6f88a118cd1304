"""What an agent fetches: data sets and checkpoints, verified, cached, and never outside the workspace."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from stoker.protocol import BlobFile, DatasetFiles, Resume
from tests.integration.worker.conftest import Agents
from tests.support.fake_server import FakeAttempt, FakeServer


def checkpoint(server: FakeServer, step: int) -> Resume:
    """As the fake trainer saves it."""
    state = json.dumps({"step": step, "total": step * (step + 1) // 2}).encode()
    listed = {"path": "state.json", "bytes": len(state), "sha256": hashlib.sha256(state).hexdigest()}
    manifest = json.dumps({"step": step, "files": [listed]}).encode()
    return Resume(step=step, files=(server.add_blob(state, "state.json"), server.add_blob(manifest, "manifest.json")))


def damage(server: FakeServer, resume: Resume) -> None:
    sha = resume.files[0].sha256
    server.blobs[sha] = server.blobs[sha][:-1] + b"?"


def test_a_data_set_is_fetched_once_per_node(agents: Agents, server: FakeServer) -> None:
    files = (server.add_blob(b"a,b\n1,2\n" * 1000, "train/rows.csv"), server.add_blob(b"{}", "schema.json"))
    first, second = agents.attempt("a1", steps=100_000, step_seconds=0.01), agents.attempt("a2", steps=2)
    first.datasets = second.datasets = (DatasetFiles(ref="digits@3", files=files),)
    agent = agents.start(first)
    server.wait_for(lambda: first.of("metrics"))
    assert (agents.home(first) / "data" / "digits@3" / "train" / "rows.csv").read_bytes() == b"a,b\n1,2\n" * 1000
    assert server.requests["blob_get"] == 2
    assert agents.run(second) == 0
    assert server.requests["blob_get"] == 2
    agent.terminate()


def test_a_damaged_blob_of_the_cache_is_fetched_again(agents: Agents, server: FakeServer) -> None:
    file = server.add_blob(b"rows", "rows.csv")
    first, second = agents.attempt("a1", steps=2), agents.attempt("a2", steps=2)
    first.datasets = second.datasets = (DatasetFiles(ref="set@1", files=(file,)),)
    agents.run(first)
    cached = agents.state / "cache" / file.sha256[:2] / file.sha256
    cached.write_bytes(b"rots")
    agents.run(second)
    assert cached.read_bytes() == b"rows"
    assert second.finish is not None
    assert second.finish.reason == "completed"


def test_a_cut_download_goes_on(agents: Agents, server: FakeServer) -> None:
    server.faults["blob_get"] = ["cut_request", "unavailable"]
    attempt = agents.attempt(steps=2)
    attempt.datasets = (DatasetFiles(ref="set@1", files=(server.add_blob(b"x" * 100_000, "rows.csv"),)),)
    assert agents.run(attempt) == 0
    assert attempt.finish is not None
    assert attempt.finish.reason == "completed"


@dataclass(frozen=True)
class Bad:
    name: str
    file: BlobFile
    ref: str = "set@1"


GOOD = BlobFile(path="rows.csv", bytes=4, sha256=hashlib.sha256(b"rows").hexdigest())
BAD = [
    Bad("missing", GOOD.model_copy(update={"sha256": "0" * 64})),
    Bad("out of the workspace", GOOD.model_copy(update={"path": "../../../escaped"})),
    Bad("absolute", GOOD.model_copy(update={"path": "/tmp/escaped"})),
    Bad("ref that leads out", GOOD, "../x"),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_bad_data_ends_the_attempt_before_it_starts(agents: Agents, server: FakeServer, bad: Bad) -> None:
    server.add_blob(b"rows", "rows.csv")
    attempt = agents.attempt(steps=2)
    attempt.datasets = (DatasetFiles(ref=bad.ref, files=(bad.file,)),)
    assert agents.run(attempt) == 0
    assert attempt.finish is not None
    assert attempt.finish.reason == "data_error"
    assert not attempt.of("started")
    assert not list(agents.state.rglob("escaped"))
    assert not Path("/tmp/escaped").exists()


def started_at(attempt: FakeAttempt) -> int:
    (frame,) = attempt.of("started")
    return int(frame.header["step"])


def test_a_run_goes_on_from_its_newest_checkpoint(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(steps=20)
    attempt.resume = (checkpoint(server, 15), checkpoint(server, 10))
    assert agents.run(attempt) == 0
    assert started_at(attempt) == 15
    assert attempt.finish is not None
    assert attempt.finish.metrics == {"train/sum": 210.0}
    assert attempt.finish.corrupt_steps == ()


def test_a_damaged_checkpoint_is_told_and_the_one_before_used(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(steps=20)
    attempt.resume = (checkpoint(server, 15), checkpoint(server, 10), checkpoint(server, 5))
    damage(server, attempt.resume[0])
    del server.blobs[attempt.resume[1].files[1].sha256]
    assert agents.run(attempt) == 0
    assert started_at(attempt) == 5
    assert attempt.finish is not None
    assert attempt.finish.metrics == {"train/sum": 210.0}
    assert attempt.finish.corrupt_steps == (15, 10)


def test_no_whole_checkpoint_is_not_a_fresh_start(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(steps=20)
    attempt.resume = (checkpoint(server, 15), checkpoint(server, 10))
    damage(server, attempt.resume[0])
    damage(server, attempt.resume[1])
    assert agents.run(attempt) == 0
    assert not attempt.of("started")
    assert attempt.finish is not None
    assert (attempt.finish.reason, attempt.finish.corrupt_steps) == ("no_valid_checkpoint", (15, 10))


def test_a_cancel_ends_an_attempt_that_still_fetches(agents: Agents, server: FakeServer) -> None:
    attempt = agents.attempt(steps=20)
    attempt.datasets = (DatasetFiles(ref="set@1", files=(server.add_blob(b"rows", "rows.csv"),)),)
    attempt.desired = "cancel"
    assert agents.run(attempt) == 0
    assert attempt.finish is not None
    assert attempt.finish.reason == "cancelled_by_user"
    assert not attempt.of("started")
