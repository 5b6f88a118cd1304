"""Ranks that share sequences or hold consecutive layers compute what one process computes, and resume to the bit."""

import hashlib
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.same_runs import Alone, assert_same, assert_same_bits, differences, interrupted
from tests.support.thorough import left
from tests.support.trainer_runs import Nursery, final_checkpoint, finished, log, prepared, trained

Json = dict[str, Any]

GPT: Json = {
    "task": {"type": "causal_lm"},
    "model": {
        "type": "transformer_decoder",
        "num_layers": 4,
        "hidden_size": 16,
        "num_heads": 4,
        "bias": False,  # the key's has a gradient of zero, of which Adam would make steps out of rounding errors
        "tie_embeddings": False,
        "init": {"type": "normal", "std": 0.2},
    },
    "data": {
        "source": {"type": "text", "dataset": "set@1"},
        "tokenizer": {"type": "char"},
        "sequence": {"length": 8},
        "split": {"validation": 0.15, "test": 0.1},
    },
    "optimizer": {
        "type": "adamw",
        "lr": 0.001,
        "eps": 1e-5,
    },  # smaller, and gradients near zero make steps out of rounding errors
    # 54 windows to train on: the last batch of an epoch has 6
    "training": {"max_steps": 9, "batch_size": 16, "gradient_clipping": {"type": "norm", "max_norm": 0.5}},
    "evaluation": {"interval": {"steps": 7}, "metrics": ["perplexity", "bits_per_byte"]},
    "logging": {"interval": {"steps": 3}, "gradient_norm": True, "performance": False},
    "checkpoint": {"interval": {"steps": 5}},
}


def _model(**changes: Any) -> Json:
    return GPT | {"model": GPT["model"] | changes}


def _spread(spec: Json, ranks: int, strategy: str = "ddp", **more: Any) -> Json:
    spread = {"strategy": strategy, "processes_per_node": ranks, **more}
    return spec | {"distributed": spread, "training": spec["training"] | {"micro_batch_size": 4}}


ROPE = {"position": {"type": "rope"}, "num_kv_heads": 2, "qk_norm": True}
CONTEXTS: dict[str, tuple[Json, int, Json]] = {
    "ddp": (GPT, 2, {}),
    "ddp-rope-grouped": (_model(**ROPE), 4, {}),
    "four-parts": (_model(position={"type": "sinusoidal"}), 4, {"context_parallel": {"degree": 4}}),
    "fsdp": (_model(**ROPE, tie_embeddings=True), 4, {"strategy": "fsdp"}),
}


@pytest.mark.proves("DIST-06")
@pytest.mark.parametrize("name", left(CONTEXTS, {"ddp-rope-grouped", "four-parts"}))
def test_sequences_in_parts_equal_whole_ones(name: str, nursery: Nursery, alone: Alone, tmp_path: Path) -> None:
    spec, ranks, more = CONTEXTS[name]
    assert_same(
        alone(spec),
        trained(nursery, tmp_path / "run", _spread(spec, ranks, **{"context_parallel": {"degree": 2}, **more}), ranks),
    )


SIX = _model(num_layers=6, dropout=0.0)
PIPES: dict[str, tuple[Json, int, Json]] = {
    "1f1b": (GPT, 2, {"microbatches": 2}),
    "gpipe": (_model(**ROPE), 4, {"schedule": "gpipe", "microbatches": 4}),
    "interleaved": (SIX, 2, {"schedule": "interleaved_1f1b", "microbatches": 4}),
    "averaged": (
        GPT | {"training": GPT["training"] | {"ema": {"decay": 0.9}, "early_stopping": {"patience": 9}}},
        2,
        {"microbatches": 4},
    ),
    "bent": (_model(embedding_size=12, final_softcap=5.0, position={"type": "alibi"}, window=4), 2, {"microbatches": 2}),
    "four-stages": (SIX, 4, {"degree": 4, "microbatches": 4}),
}


@pytest.mark.proves("DIST-06")
@pytest.mark.parametrize("name", left(PIPES, {"averaged", "four-stages"}))
def test_stages_equal_a_whole_model(name: str, nursery: Nursery, alone: Alone, tmp_path: Path) -> None:
    spec, ranks, more = PIPES[name]
    assert_same(alone(spec), trained(nursery, tmp_path / "run", _spread(spec, ranks, pipeline_parallel=more), ranks))


def test_micro_batches_that_do_not_divide_into_pieces_are_refused(nursery: Nursery, tmp_path: Path) -> None:
    spread: Json = {"strategy": "ddp", "processes_per_node": 2, "pipeline_parallel": {"degree": 2}}
    spec = GPT | {"training": {"max_steps": 2, "batch_size": 2}, "distributed": spread}
    home = prepared(tmp_path / "run", spec)
    assert nursery.run(home, 2) == [2, 2], log(home)
    assert finished(home).reason == "spec_error"
    assert "training.micro_batch_size: 2 samples do not divide into the 4 pieces" in (finished(home).message or "")


DROPOUT = _model(dropout=0.1, attention_dropout=0.1, embedding_dropout=0.1)
RESUMED: dict[str, tuple[Json, int, Json]] = {
    "context": (DROPOUT, 2, {"context_parallel": {"degree": 2}}),
    "pipeline": (DROPOUT, 2, {"pipeline_parallel": {"degree": 2}}),
}


@pytest.mark.proves("DIST-06")
@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_has_the_bits_of_the_uninterrupted(name: str, nursery: Nursery, tmp_path: Path) -> None:
    spec, ranks, more = RESUMED[name]
    spec = _spread(spec, ranks, **more)
    spec |= {"training": spec["training"] | {"max_steps": 18}}
    whole = trained(nursery, tmp_path / "whole", spec, ranks)
    broken = interrupted(nursery, prepared(tmp_path / "broken", spec), ranks, (8, signal.SIGKILL), (7, signal.SIGTERM))
    assert_same_bits(whole, broken, but=frozenset({"ranks.safetensors"}))


@pytest.mark.parametrize("name", RESUMED)
def test_one_process_goes_on_where_ranks_stopped(name: str, nursery: Nursery, alone: Alone, tmp_path: Path) -> None:
    _, ranks, more = RESUMED[name]
    spec = _spread(GPT, ranks, **more)
    first = spec | {"training": spec["training"] | {"max_steps": 5}}
    home = trained(nursery, tmp_path / "run", first, ranks)
    state = final_checkpoint(home) / "state.json"
    text = json.loads(state.read_text())
    assert text["samples"] == 70  # 54 in the first epoch
    (home / "spec.json").write_text(json.dumps(spec))
    _reopened(final_checkpoint(home))
    assert nursery.run(home, 1) == [0], log(home)
    off = differences(alone(GPT), home)
    assert max(off.values()) <= 2e-6, off


def _reopened(path: Path) -> None:
    """A run that ended, made one that goes on: what its state says of the end is taken out."""
    state, manifest = path / "state.json", path / "manifest.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"ended": None}))
    listed = json.loads(manifest.read_text())
    for entry in listed["files"]:
        if entry["path"] == "state.json":
            data = state.read_bytes()
            entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    manifest.write_text(json.dumps(listed))
