"""What a run leaves for other programs: files that transformers loads, with logits that equal ours."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from stoker.events import Artifact
from tests.support.trainer_runs import Nursery, blobs, events, final_checkpoint, log, workspace
from worker.trainer.checkpoint.from_hugging_face import read_hugging_face
from worker.trainer.model import build_model
from worker.trainer.predict import load

Json = dict[str, Any]
WORDS = "the quick brown fox jumps over the lazy dog and runs away from it; " * 60
BASE: Json = {
    "task": {"type": "causal_lm"},
    "data": {"source": {"type": "text", "dataset": "set@1"}, "sequence": {"length": 16}, "split": {"validation": 0.1}},
    "training": {"max_steps": 4, "batch_size": 8},
    "optimizer": {"type": "adamw", "lr": 0.01},
    "checkpoint": {"export": ["safetensors", "huggingface"]},
}
SMALL: Json = {
    "type": "transformer_decoder",
    "num_layers": 2,
    "hidden_size": 24,
    "num_heads": 4,
    "init": {"type": "normal", "std": 0.2},
}
LLAMA = SMALL | {
    "position": {"type": "rope", "base": 500.0},
    "normalization": {"type": "rms"},
    "activation": "silu",
    "gated_ffn": True,
    "ffn_size": 40,
}
BERT = SMALL | {
    "type": "transformer_encoder",
    "norm_placement": "post",
    "segments": 2,
    "embedding_norm": True,
    "head_transform": True,
    "position": {"type": "learned", "max_length": 20},
}
MODELS: dict[str, tuple[Json, Json]] = {
    "gpt2": (SMALL | {"activation": "gelu_tanh"}, {"type": "bpe", "vocab_size": 280}),
    "gpt2-untied": (SMALL | {"activation": "gelu", "ffn_size": 50, "tie_embeddings": False}, {"type": "char"}),
    "llama": (LLAMA | {"bias": False, "num_kv_heads": 2}, {"type": "bpe", "vocab_size": 280}),
    "llama-stretched": (
        LLAMA | {"bias": False, "position": {"type": "rope", "base": 500.0, "scaling": {"type": "linear", "factor": 2.0}}},
        {"type": "byte"},
    ),
    "llama-ntk": (
        LLAMA | {"bias": False, "position": {"type": "rope", "base": 500.0, "scaling": {"type": "ntk", "factor": 3.0}}},
        {"type": "byte"},
    ),
    "bert": (BERT, {"type": "bpe", "vocab_size": 280}),
    "llama-biased": (LLAMA | {"key_dim": 10, "tie_embeddings": False}, {"type": "byte"}),
}
ASK = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging
logging.set_verbosity_error()
said = {}
for home in sys.argv[2:]:
    kind = AutoModelForMaskedLM if "/bert/" in home else AutoModelForCausalLM
    model, told = kind.from_pretrained(home, output_loading_info=True, dtype=torch.float32)
    model.eval()
    ids = torch.tensor(json.loads(sys.argv[1]))
    with torch.no_grad():
        said[home] = {"logits": model(ids % model.config.vocab_size).logits.double().tolist(), "missing": sorted(told["missing_keys"]), "unexpected": sorted(told["unexpected_keys"])}
    try:
        tokenizer = AutoTokenizer.from_pretrained(home)
        said[home]["ids"] = tokenizer("the lazy fox")["input_ids"]
        said[home]["text"] = tokenizer.decode(said[home]["ids"])
    except Exception:
        said[home]["ids"] = None
print("ANSWER" + json.dumps(said))
"""
IDS = [[(7 * i + 3 * j) % 250 for i in range(16)] for j in range(3)]


@pytest.fixture(scope="module")
def homes(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, found = tmp_path_factory.mktemp("exports"), {}
    for name, (model, tokenizer) in MODELS.items():
        task = {"type": "masked_lm" if model["type"] == "transformer_encoder" else "causal_lm"}
        home = workspace(root / name, BASE | {"task": task, "model": model, "data": BASE["data"] | {"tokenizer": tokenizer}})
        (home / "data" / "set@1" / "words.txt").write_text(WORDS)
        assert nursery.run(home) == [0], log(home)
        found[name] = home
    return found


@pytest.fixture(scope="module")
def said(homes: dict[str, Path]) -> dict[str, Any]:
    """What transformers makes of each, in an interpreter of its own."""
    folders = [str(home / "artifacts" / "export" / "huggingface") for home in homes.values()]
    done = subprocess.run([sys.executable, "-c", ASK, json.dumps(IDS), *folders], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = next(line for line in done.stdout.splitlines() if line.startswith("ANSWER"))
    return dict(zip(homes, json.loads(answer.removeprefix("ANSWER")).values(), strict=True))


@pytest.mark.proves("ARCH-11", "ARCH-12", "ARCH-16", "ARCH-22")
@pytest.mark.proves("CKPT-01", cases=["gpt2", "llama"])
@pytest.mark.parametrize("name", MODELS)
def test_transformers_computes_the_same_logits(name: str, homes: dict[str, Path], said: dict[str, Any]) -> None:
    ours = load(final_checkpoint(homes[name]))
    rows = ours.about.outputs
    with torch.no_grad():
        expected = ours.model(torch.tensor(IDS) % rows)
    assert said[name]["missing"] == said[name]["unexpected"] == []
    assert np.abs(np.array(said[name]["logits"]) - expected.double().numpy()).max() < 1e-5
    assert expected.std() > 0.5, "logits that say nothing prove nothing"


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_transformers_finds_the_tokenizer(name: str, homes: dict[str, Path], said: dict[str, Any]) -> None:
    codec = load(final_checkpoint(homes[name])).about.codec
    assert codec is not None
    assert said[name]["ids"] == codec.encode("the lazy fox").tolist()
    assert said[name]["text"] == "the lazy fox"


def test_plain_export_is_the_model_with_its_description(nursery: Nursery, tmp_path: Path) -> None:
    """From two ranks that each hold a half."""
    spec = {
        "task": {"type": "classification"},
        "model": {"type": "mlp", "hidden_sizes": [9, 7]},
        "data": {"source": {"type": "arrays", "dataset": "set@1"}},
        "training": {"max_steps": 3, "batch_size": 32},
        "checkpoint": {"export": ["safetensors"]},
        "distributed": {"strategy": "fsdp", "processes_per_node": 2},
    }
    home = workspace(tmp_path / "run", spec, **blobs())
    assert nursery.run(home, 2) == [0, 0], log(home)
    kept = {event.name: home / event.path for event in events(home) if isinstance(event, Artifact)}
    assert {"export/safetensors/model.safetensors", "export/safetensors/config.json"} <= kept.keys()
    exported = load_file(kept["export/safetensors/model.safetensors"])
    model = load(final_checkpoint(home)).model.state_dict()
    assert exported.keys() == model.keys()
    assert all(torch.equal(exported[name], tensor) for name, tensor in model.items())
    with safe_open(kept["export/safetensors/model.safetensors"], "pt") as file:
        assert file.metadata() == {"format": "pt", "model": "mlp", "step": "3", "made_by": "stoker"}
    config = json.loads(kept["export/safetensors/config.json"].read_text())
    assert config["model"]["hidden_sizes"] == [9, 7]
    assert (config["shape"], config["outputs"]) == ([12], 4)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_read_again(name: str, homes: dict[str, Path]) -> None:
    """The same model with the same bits, but for a longer base where rotations were stretched by one."""
    found, ours = read_hugging_face(homes[name] / "artifacts" / "export" / "huggingface"), load(final_checkpoint(homes[name]))
    state = ours.model.state_dict()
    assert found.unexpected == ()
    assert found.tensors.keys() == state.keys()
    assert all(torch.equal(found.tensors[key], tensor) for key, tensor in state.items())
    again = build_model(found.configured.model, (16,), found.configured.vocabulary, text=True).eval()
    again.load_state_dict(dict(found.tensors))
    ids = torch.tensor(IDS) % ours.about.outputs
    with torch.no_grad():
        assert (again(ids) - ours.model(ids)).abs().max() < 1e-5
