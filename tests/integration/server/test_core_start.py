"""Jobs that start from weights: of another job's checkpoint or of a data set, pinned, checked, and handed to the agent."""

import json
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from stoker.cli.show import lineage
from tests.integration.server.test_core_continued import LONG, saved, trained
from tests.support.live import JOB, Live, claim
from tests.support.uploads import upload

WEIGHTS = save({"0.weight": np.ones((4, 2), np.float32), "0.bias": np.zeros(4, np.float32)})


def starting(start: dict[str, Any], **more: Any) -> dict[str, Any]:
    return JOB | {"initialization": {"start": start}} | more


def findings(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 422, answer.text
    return {found["pointer"]: found["code"] for found in answer.json()["errors"]}


@pytest.mark.proves("INIT-06")
def test_a_warm_start_is_pinned_to_a_step_and_handed_over(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    source = trained(served, user, worker, 4, 7, 10)
    made = user.post("/v1/jobs", json=starting({"type": "warm", "checkpoint": {"job": source, "checkpoint": "best"}}))
    assert made.status_code == 202, made.text
    agent = claim(served, worker)
    assert agent.claimed["spec"]["initialization"]["start"]["checkpoint"] == {"job": source, "checkpoint": 10}
    assert agent.claimed["resume"] == []
    given = {files["ref"]: files["files"] for files in agent.claimed["datasets"]}
    assert given["start"] == user.get(f"/v1/jobs/{source}/checkpoints/10").json()["files"]
    spec = user.get(f"/v1/jobs/{made.json()['id']}/spec", params={"resolved": "true"}).json()["spec"]
    assert lineage(spec) == f"weights of step 10 of {source}"
    agent.finish()


def test_a_start_stays_until_its_job_has_ended(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    """The source still trains and keeps its newest two; what is held is handed over however long the other job waits."""
    policy = {"checkpoint": {"keep_last": 2, "keep_best": 0}}
    begun = user.post("/v1/jobs", json=JOB | LONG | policy)
    assert begun.status_code == 202, begun.text
    source = begun.json()["id"]
    agent = claim(served, worker)
    agent.started()
    saved(agent, worker, 3)
    made = user.post("/v1/jobs", json=starting({"type": "warm", "checkpoint": {"job": source, "checkpoint": 3}}))
    assert made.status_code == 202, made.text

    def states() -> dict[int, str]:
        return {each["step"]: each["state"] for each in user.get(f"/v1/jobs/{source}/checkpoints").json()["data"]}

    for step in (4, 5, 6):
        saved(agent, worker, step)
    assert states() == {3: "available", 4: "expired", 5: "available", 6: "available"}
    other = claim(served, worker, agent_id="agent-00000002")
    assert [files["ref"] for files in other.claimed["datasets"]] == ["toy@1", "start"]
    ended = other.finish()
    assert ended.json() == {"state": "succeeded"}
    saved(agent, worker, 8)
    assert states() == {3: "expired", 4: "expired", 5: "expired", 6: "available", 8: "available"}
    agent.finish()


def test_a_start_that_is_not_there_or_does_not_fit_is_refused(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    source = trained(served, user, worker, 4)
    at = "/initialization/start/checkpoint"
    missing = starting({"type": "warm", "checkpoint": {"job": "job_" + "0" * 26}})
    assert findings(user.post("/v1/jobs", json=missing)) == {f"{at}/job": "start-not-found"}
    gone = starting({"type": "warm", "checkpoint": {"job": source, "checkpoint": 5}})
    assert findings(user.post("/v1/jobs", json=gone)) == {f"{at}/checkpoint": "start-checkpoint-missing"}
    other = starting(
        {"type": "warm", "checkpoint": {"job": source}}, model={"type": "layers", "layers": [{"type": "linear", "units": 2}]}
    )
    assert f"{at}/job" in findings(user.post("/v1/jobs", json=other))


@pytest.mark.proves("INIT-07")
def test_weights_are_a_data_set_of_their_own_kind(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    made = upload(user, "weights", {"model.safetensors": WEIGHTS, "config.json": b"{}"})
    assert made.status_code < 300, made.text
    unsaid = {"config": {}, "vocabulary": None, "mask_id": None, "pad_id": None}
    assert made.json()["facts"] == {"kind": "weights", "tensors": 2, "parameters": 12} | unsaid
    answer = user.post("/v1/jobs", json=starting({"type": "pretrained", "source": "weights"}))
    assert answer.status_code == 202, answer.text
    agent = claim(served, worker)
    assert agent.claimed["spec"]["initialization"]["start"]["source"] == "weights@1"
    given = {files["ref"]: {f["path"] for f in files["files"]} for files in agent.claimed["datasets"]}
    assert given["weights@1"] == {"model.safetensors", "config.json"}
    agent.finish()
    wrong = starting({"type": "pretrained", "source": "weights", "sha256": "0" * 64})
    assert findings(user.post("/v1/jobs", json=wrong)) == {"/initialization/start/sha256": "start-other-bytes"}
    table = starting({"type": "pretrained", "source": "toy"})
    assert findings(user.post("/v1/jobs", json=table)) == {"/initialization/start/source": "start-no-weights"}
    learned = JOB | {"data": {"source": {"type": "csv", "dataset": "weights"}}}
    assert "/data/source/dataset" in findings(user.post("/v1/jobs", json=learned))


def test_a_published_tokenizer_is_pinned_counted_and_handed_over(served: Live, user: httpx.Client, worker: httpx.Client) -> None:
    words = {"added_tokens": [{"id": 4, "content": "[SEP]"}], "model": {"type": "WordLevel", "vocab": {"good": 0, "bad": 3}}}
    files = {"model.safetensors": WEIGHTS, "tokenizer.json": json.dumps(words).encode()}
    made = upload(user, "words", files)
    assert made.json()["facts"]["vocabulary"] == 5
    upload(user, "texts", {"texts.csv": b"text,label\ngood,a\nbad,b\n" * 20})

    def reading(tokenizer: dict[str, Any], **more: Any) -> dict[str, Any]:
        data = {"source": {"type": "csv", "dataset": "texts", "text": "text"}, "tokenizer": {"type": "file"} | tokenizer}
        model = {"type": "gru", "hidden_size": 8}
        return JOB | {"data": data, "model": model, "task": {"type": "classification", "target": "label"}} | more

    answer = user.post("/v1/jobs", json=reading({"source": "words"}))
    assert answer.status_code == 202, answer.text
    agent = claim(served, worker)
    assert agent.claimed["spec"]["data"]["tokenizer"] == {
        "type": "file",
        "source": "words@1",
        "vocab_size": 5,
        "special_tokens": True,
        "mask_id": None,
        "pad_id": None,
    }
    given = {files["ref"]: {f["path"] for f in files["files"]} for files in agent.claimed["datasets"]}
    assert given["words@1"] == {"tokenizer.json"}
    agent.finish()
    both = reading({"source": "words", "vocab_size": 9}, initialization={"start": {"type": "pretrained", "source": "words@1"}})
    assert user.post("/v1/jobs", json=both).status_code == 202
    agent = claim(served, worker)
    given = [(files["ref"], len(files["files"])) for files in agent.claimed["datasets"]]
    assert given == [("texts@1", 1), ("words@1", 2)]
    agent.finish()
    for wrong, pointer, code in (
        ({"source": "nothing"}, "source", "tokenizer-not-found"),
        ({"source": "texts"}, "source", "tokenizer-no-file"),
        ({"source": "words", "vocab_size": 4}, "vocab_size", "tokenizer-too-large"),
    ):
        assert findings(user.post("/v1/jobs", json=reading(wrong))) == {f"/data/tokenizer/{pointer}": code}


def header(entries: dict[str, Any], data: bytes = b"\0" * 8) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 40,
        header({}),
        header({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}),
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 9),
        header({"a": {"dtype": "X", "shape": [2], "data_offsets": [0, 8]}}),
        header({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}),
        header({"a": 1}),
        WEIGHTS[:-1],
    ],
)
def test_what_is_no_safetensors_file_is_refused(served: Live, user: httpx.Client, data: bytes) -> None:
    answer = upload(user, "odd", {"model.safetensors": data})
    assert answer.status_code in (400, 415, 422), answer.text
