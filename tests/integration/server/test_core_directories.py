"""Hugging Face directories as data sets: written out at submit with the origin of each value, or refused by the name of what is wrong."""

import json
from typing import Any

import httpx
import pytest

from tests.integration.server.test_core_start import findings
from tests.support.directories import LENGTH, WIDTH, gpt2_directory, gpt2_weights
from tests.support.live import Live, claim
from tests.support.uploads import upload

SPOKEN = b"the word was with the fire. " * 400
ANY = {"task": {"type": "causal_lm"}, "training": {"max_steps": 2, "batch_size": 8}}


def job(model: dict[str, Any], **more: Any) -> dict[str, Any]:
    data = {"source": {"type": "text", "dataset": "spoken"}, "sequence": {"length": 16}}
    return ANY | {"model": model, "data": data} | more


@pytest.fixture(scope="module")
def gpt(served: Live) -> dict[str, bytes]:
    files = gpt2_directory()
    with served.client("read", "submit") as user:
        assert upload(user, "spoken", {"spoken.txt": SPOKEN}).status_code == 201
        made = upload(user, "gpt", files)
    assert made.status_code == 201, made.text
    facts = made.json()["facts"]
    assert facts["config"]["n_embd"] == WIDTH
    assert "id2label" not in facts["config"]
    assert (facts["vocabulary"], facts["mask_id"], facts["pad_id"]) == (280, None, None)
    return files


def test_a_directory_becomes_explicit_fields(
    served: Live, user: httpx.Client, worker: httpx.Client, gpt: dict[str, bytes]
) -> None:
    made = user.post("/v1/jobs", json=job({"type": "hf", "source": "gpt", "dropout": 0.25}))
    assert made.status_code == 202, made.text
    answer = user.get(f"/v1/jobs/{made.json()['id']}/spec", params={"resolved": "true"}).json()
    spec, origins = answer["spec"], answer["origins"]
    model = spec["model"]
    assert (model["type"], model["num_layers"], model["hidden_size"], model["num_heads"]) == ("transformer_decoder", 2, WIDTH, 2)
    assert (model["position"], model["activation"]) == ({"type": "learned", "max_length": LENGTH}, "gelu_tanh")
    assert (model["dropout"], origins["/model/dropout"]) == (0.25, "user")
    assert model["attention_dropout"] == 0.0
    start = {"type": "pretrained", "source": "gpt@1", "names": "huggingface", "strict": True}
    assert start.items() <= spec["initialization"]["start"].items()
    tokenizer = {"type": "file", "source": "gpt@1", "vocab_size": 280, "special_tokens": True, "mask_id": None, "pad_id": None}
    assert spec["data"]["tokenizer"] == tokenizer
    brought = ("/model/num_layers", "/model/type", "/initialization/start/source", "/data/tokenizer/vocab_size")
    assert {origins[pointer] for pointer in brought} == {"hf:gpt@1"}
    asked = user.get(f"/v1/jobs/{made.json()['id']}/spec").json()
    assert asked["model"] == {"type": "hf", "source": "gpt", "dropout": 0.25}
    planned = made.json()["plan"]["parameters"]["total"]
    assert planned == sum(weight.size for weight in gpt2_weights(280).values())
    agent = claim(served, worker)
    given = {files["ref"]: {f["path"] for f in files["files"]} for files in agent.claimed["datasets"]}
    assert given["gpt@1"] == gpt.keys()
    agent.finish()


def test_a_resolved_spec_means_the_same(user: httpx.Client, gpt: dict[str, bytes]) -> None:
    first = user.post("/v1/plans", json=job({"type": "hf", "source": "gpt"}))
    assert first.status_code == 200, first.text
    made = user.post("/v1/jobs", json=job({"type": "hf", "source": "gpt@1"}))
    spec = user.get(f"/v1/jobs/{made.json()['id']}/spec", params={"resolved": "true"}).json()["spec"]
    again = user.post("/v1/plans", json=spec)
    assert again.status_code == 200, again.text
    assert again.json()["spec_digest"] == first.json()["spec_digest"]
    user.post(f"/v1/jobs/{made.json()['id']}/cancel")


def test_the_architecture_alone_brings_the_tokenizer_alone(
    served: Live, user: httpx.Client, worker: httpx.Client, gpt: dict[str, bytes]
) -> None:
    made = user.post("/v1/jobs", json=job({"type": "hf", "source": "gpt", "weights": False}))
    assert made.status_code == 202, made.text
    agent = claim(served, worker)
    assert agent.claimed["spec"]["initialization"]["start"] == {"type": "cold"}
    given = {files["ref"]: {f["path"] for f in files["files"]} for files in agent.claimed["datasets"]}
    assert given["gpt@1"] == {"tokenizer.json", "tokenizer_config.json"}
    agent.finish()


def test_what_a_directory_asks_that_is_not_computed_is_refused_by_its_field(user: httpx.Client, gpt: dict[str, bytes]) -> None:
    said = json.loads(gpt["config.json"]) | {"auto_map": {"AutoModel": "evil.Model"}}
    assert upload(user, "other", gpt | {"config.json": json.dumps(said).encode()}).status_code < 300
    answer = user.post("/v1/plans", json=job({"type": "hf", "source": "other"}))
    assert findings(answer) == {"/model/source": "hf-unsupported"}
    assert "auto_map" in answer.json()["errors"][0]["message"]


def test_what_does_not_go_together_is_refused(user: httpx.Client, gpt: dict[str, bytes]) -> None:
    def told(document: dict[str, Any]) -> dict[str, str]:
        return findings(user.post("/v1/plans", json=document))

    hf = {"type": "hf", "source": "gpt"}
    assert told(job({"type": "hf", "source": "nothing"})) == {"/model/source": "hf-not-found"}
    assert told(job({"type": "hf", "source": "toy"})) == {"/model/source": "hf-no-weights"}
    assert told(job(hf, initialization={"start": {"type": "cold"}})) == {"/model/weights": "hf-two-beginnings"}
    other = {"start": {"type": "pretrained", "source": "toy"}}
    assert told(job(hf, initialization=other)) == {"/model/weights": "hf-two-beginnings"}
    spoken = {"source": {"type": "text", "dataset": "spoken"}, "sequence": {"length": 16}}
    assert told(job(hf, data=spoken | {"tokenizer": {"type": "byte"}})) == {"/data/tokenizer": "hf-vocabulary"}
    short = {"type": "file", "source": "gpt", "vocab_size": 200}
    assert "/data/tokenizer/vocab_size" in told(job(hf, data=spoken | {"tokenizer": short}))
    beyond = {"type": "file", "source": "gpt", "mask_id": 280}
    assert told(job(hf, data=spoken | {"tokenizer": beyond})) == {"/data/tokenizer/mask_id": "token-beyond-vocabulary"}
    numbers = {"source": {"type": "csv", "dataset": "toy"}}
    classes = {"type": "classification", "target": "label"}
    assert "/model/source" in told(job(hf, data=numbers, task=classes))
    longer = spoken | {"sequence": {"length": LENGTH + 1}}
    assert told(job(hf, data=longer)) == {"/model/position/max_length": "position-table"}
    assert "/model/source" in told(job({"type": "hf"}))
    assert "/model/n_layer" in told(job(hf | {"n_layer": 3}))


def test_a_directory_without_a_tokenizer_or_config(user: httpx.Client, gpt: dict[str, bytes]) -> None:
    mute = {name: data for name, data in gpt.items() if not name.startswith("tokenizer")}
    assert upload(user, "mute", mute).status_code == 201
    assert findings(user.post("/v1/plans", json=job({"type": "hf", "source": "mute"}))) == {"/data/tokenizer": "hf-no-tokenizer"}
    bare = {"model.safetensors": gpt["model.safetensors"]}
    assert upload(user, "bare", bare).status_code == 201
    assert findings(user.post("/v1/plans", json=job({"type": "hf", "source": "bare"}))) == {"/model/source": "hf-no-config"}


def test_a_broken_directory_is_refused_at_upload(user: httpx.Client, gpt: dict[str, bytes]) -> None:
    pickled = {name: data for name, data in gpt.items() if name != "model.safetensors"} | {"pytorch_model.bin": b"\x80\x02."}
    for files, status, word in (
        (pickled, 415, "pickle"),
        (gpt | {"modeling_evil.py": b"import os"}, 422, "modeling_evil.py"),
        (gpt | {"config.json": b'{"a": NaN}'}, 422, "config.json"),
        (gpt | {"model.safetensors": gpt["model.safetensors"][:-4]}, 422, "longer or shorter"),
    ):
        answer = upload(user, "broken", files)
        assert (answer.status_code, word in answer.text) == (status, True), answer.text
