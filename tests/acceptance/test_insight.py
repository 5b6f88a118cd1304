"""What a run shows of its inside, fetched through the API; and the spec among its results, which repeats it."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from stoker.document.load import load_file
from tests.support.data import PERFORMANCE, digits_csv, upload
from tests.support.stack import Stack

EXAMPLE = Path(__file__).parents[2] / "examples" / "features" / "insight.yaml"


@pytest.fixture(scope="module", autouse=True)
def uploaded(installation: Stack) -> None:
    upload(installation, "digits", {"digits.csv": digits_csv()})


@pytest.fixture(scope="module")
def shown(installation: Stack) -> dict[str, Any]:
    job = installation.wait(installation.submit(dict(load_file(EXAMPLE).value)), timeout=200)
    assert job["state"] == "succeeded", installation.story(job["id"])
    return job


def fetched(stack: Stack, job: dict[str, Any], name: str) -> bytes:
    with stack.http as http:
        answer = http.get(f"/v1/jobs/{job['id']}/artifacts/{name}")
    assert answer.status_code == 200, answer.text
    return answer.content


def curves(stack: Stack, job: dict[str, Any]) -> dict[str, Any]:
    """Every metric but speeds, by key."""
    found = stack.get(f"/v1/jobs/{job['id']}/metrics", max_points=10_000)["keys"]
    return {key: (value["steps"], value["mean"]) for key, value in found.items() if not key.endswith(PERFORMANCE)}


@pytest.mark.proves("DBG-01", "DBG-02", "LOG-03", "XAI-01")
def test_every_result_is_there(installation: Stack, shown: dict[str, Any]) -> None:
    names = {row["name"] for row in installation.get(f"/v1/jobs/{shown['id']}/artifacts")["data"]}
    probes = {f"probes/0.output/step-{step:08d}.safetensors" for step in (20, 40, 60)}
    assert names == probes | {f"histograms/step-{step:08d}.json" for step in (20, 40, 60)} | {
        "model_summary.json",
        "model_summary.txt",
        "trace/rank0.json.gz",
        "trace/table.txt",
        "timing.json",
        "hyperparameters.json",
        "metrics/from-step-00000000.jsonl",
        "tensorboard/events.out.tfevents.from-step-00000000",
        "attributions.safetensors",
        "attributions.json",
    }
    assert json.loads(gzip.decompress(fetched(installation, shown, "trace/rank0.json.gz")))["traceEvents"]
    (attempt,) = json.loads(fetched(installation, shown, "timing.json"))["attempts"]
    assert sum(attempt["seconds"].values()) == pytest.approx(attempt["wall_seconds"], rel=0.02)
    ranking = json.loads(fetched(installation, shown, "attributions.json"))["targets"]["predicted"]["ranking"]
    assert {entry["feature"] for entry in ranking} == {f"p{i}" for i in range(64)}
    assert ranking[0]["importance"] > ranking[-1]["importance"] >= 0


@pytest.mark.proves("LOG-01")
def test_the_api_has_each_metric_once_as_the_file_has(installation: Stack, shown: dict[str, Any]) -> None:
    _, *lines = [json.loads(line) for line in fetched(installation, shown, "metrics/from-step-00000000.jsonl").splitlines()]
    ours: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for key, value in line["values"].items():
            ours.setdefault(key, []).append((line["step"], value))
    theirs = curves(installation, shown)
    assert set(theirs) == {key for key in ours if not key.endswith(PERFORMANCE)}
    for key, (steps, values) in theirs.items():
        assert steps == sorted(set(steps)) == [step for step, _ in ours[key]]
        assert values == [value for _, value in ours[key]], key
    assert {"gradient/0", "probe/0.output.mean", "probe/2.gradient.std", "validation/auroc"} <= theirs.keys()


@pytest.mark.proves("LOG-02")
def test_the_stored_spec_repeats_the_run_to_the_bit(installation: Stack, shown: dict[str, Any]) -> None:
    stored = json.loads(fetched(installation, shown, "hyperparameters.json"))
    again = installation.wait(installation.submit(stored["spec"]), timeout=200)
    assert again["state"] == "succeeded", installation.story(again["id"])
    assert json.loads(fetched(installation, again, "hyperparameters.json")) == stored
    assert curves(installation, again) == curves(installation, shown)
    weights = [
        {file["path"]: file["sha256"] for file in installation.get(f"/v1/jobs/{job['id']}/checkpoints/final")["files"]}
        for job in (shown, again)
    ]
    assert weights[0]["model.safetensors"] == weights[1]["model.safetensors"]
    assert weights[0]["optimizer.safetensors"] == weights[1]["optimizer.safetensors"]
