"""From a job file to a trained model in the user's hands, through every process of the system."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.support.data import digits_job, upload
from tests.support.stack import Stack

TEXT = ("the quick brown fox jumps over the lazy dog. " * 400).encode()


@pytest.fixture(scope="module")
def finished(stack: Stack) -> dict[str, Any]:
    return stack.wait(stack.submit(digits_job()))


def test_two_ranks_train_to_the_end(stack: Stack, finished: dict[str, Any]) -> None:
    assert finished["state"] == "succeeded"
    assert finished["outcome"] == "completed"
    assert finished["progress"]["step"] == 400
    assert finished["progress"]["fraction"] == 1.0
    assert finished["metrics"]["test/accuracy"] > 0.9


def test_every_logged_step_is_there_once(stack: Stack, finished: dict[str, Any]) -> None:
    series = stack.get(f"/v1/jobs/{finished['id']}/metrics", keys="train/loss,validation/loss", max_points=10_000)
    assert series["bucket"] == 1
    assert series["keys"]["train/loss"]["steps"] == list(range(5, 401, 5))
    assert set(series["keys"]["train/loss"]["count"]) == {1}
    assert series["keys"]["validation/loss"]["steps"] == [100, 200, 300, 400]


def test_the_event_log_is_gapless_and_ends(stack: Stack, finished: dict[str, Any]) -> None:
    events = stack.get(f"/v1/jobs/{finished['id']}/events", limit=500)["data"]
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    states = [e["data"]["to"] for e in events if e["type"] == "state"]
    assert states == ["queued", "starting", "running", "finishing", "succeeded"] or states == [
        "queued",
        "starting",
        "running",
        "succeeded",
    ]
    assert events[-1]["type"] == "end"
    assert events[-1]["data"]["state"] == "succeeded"


def test_the_best_checkpoint_downloads_and_verifies(stack: Stack, finished: dict[str, Any], tmp_path: Path) -> None:
    manifest = stack.get(f"/v1/jobs/{finished['id']}/checkpoints/best")
    assert "best" in manifest["tags"]
    with stack.http as http:
        for entry in manifest["files"]:
            answer = http.get(f"/v1/jobs/{finished['id']}/checkpoints/best/files/{entry['path']}")
            assert hashlib.sha256(answer.content).hexdigest() == entry["sha256"]
            assert answer.headers["etag"].strip('"') == entry["sha256"]
            (tmp_path / entry["path"]).write_bytes(answer.content)
            part = http.get(f"/v1/jobs/{finished['id']}/checkpoints/best/files/{entry['path']}", headers={"Range": "bytes=3-9"})
            assert (part.status_code, part.content) == (206, answer.content[3:10])
    weights = load_file(tmp_path / "model.safetensors")
    assert sorted(w.shape for w in weights.values() if w.ndim == 2) == [(10, 32), (32, 64), (64, 64)]


def test_the_plan_came_true(stack: Stack, finished: dict[str, Any]) -> None:
    plan = stack.job(str(finished["id"]))["plan"]
    kept = stack.get(f"/v1/jobs/{finished['id']}/checkpoints/last")
    predicted = plan["checkpoint"]["total_bytes"]
    assert abs(predicted - kept["bytes"]) <= 0.01 * kept["bytes"]
    assert plan["parameters"]["total"] == 64 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10
    assert plan["steps"]["total"] == 400


def test_a_small_gpt_learns_from_text(stack: Stack) -> None:
    upload(stack, "fox", {"fox.txt": TEXT})
    spec = {
        "name": "fox",
        "task": {"type": "causal_lm"},
        "model": {"type": "transformer_decoder", "num_layers": 2, "hidden_size": 32, "num_heads": 2, "dropout": 0.1},
        "data": {"source": {"type": "text", "dataset": "fox"}, "tokenizer": {"type": "char"}, "sequence": {"length": 32}},
        "optimizer": {"type": "adamw", "lr": 3e-3},
        "training": {"max_steps": 120, "batch_size": 16},
    }
    job = stack.wait(stack.submit(spec))
    assert job["state"] == "succeeded", stack.story(str(job["id"]))
    assert job["metrics"]["validation/loss"] < 1.0


def test_logs_hold_what_ranks_printed(stack: Stack, finished: dict[str, Any]) -> None:
    with stack.http as http:
        answer = http.get(f"/v1/jobs/{finished['id']}/logs", headers={"Accept": "text/plain"})
    assert answer.status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    lines = [line.removeprefix("[0] ") for line in answer.text.splitlines()]
    assert any(line.startswith("step 0 of 400: 6,570 parameters, 2 ranks on cpu") for line in lines), answer.text[:2000]
    assert sum(line.startswith("step 5: train/loss ") for line in lines) == 1
    assert any(line.startswith("step 400: completed") for line in lines)


def test_a_failing_job_says_why(stack: Stack) -> None:
    upload(stack, "spoiled", {"a.csv": b"x,label\n" + b"1,0\n2,1\n" * 20})
    spec = digits_job(
        optimizer={"type": "sgd", "lr": 1e11},
        task={"type": "regression", "target": "label"},
        model={"type": "mlp", "hidden_sizes": [8]},
    )
    spec["data"] = {"source": {"type": "csv", "dataset": "spoiled"}, "split": {"validation": 0.2}}
    spec["training"] = {"max_steps": 200, "batch_size": 8}
    job = stack.wait(stack.submit(spec))
    assert (job["state"], job["reason"]) == ("failed", "nan_loss")
    assert job["error"]["fault"] == "user"
    assert job["error"]["hint"]
