"""Ranks that share sequences or hold consecutive layers compute what one process computes, and resume to the bit."""

import hashlib
import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stoker.events import Started
from tests.support.trainer_runs import Nursery, events, final_checkpoint, finished, log, same_bits, series, tensors, workspace

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
    "training": {"max_steps": 12, "batch_size": 16, "gradient_clipping": {"type": "norm", "max_norm": 0.5}},
    "evaluation": {"interval": {"steps": 7}, "metrics": ["perplexity", "bits_per_byte"]},
    "logging": {"interval": {"steps": 3}, "gradient_norm": True, "performance": False},
    "checkpoint": {"interval": {"steps": 5}},
}
TEXT = "the cat sat on the mat, a dog ran to it. who saw how the fox jumps over that lazy one? nobody but the owl; it flew.\n" * 5


def _prepared(home: Path, spec: Json) -> Path:
    workspace(home, spec)
    (home / "data" / "set@1" / "text.txt").write_text(TEXT)
    return home


def _train(nursery: Nursery, home: Path, spec: Json, ranks: int) -> Path:
    _prepared(home, spec)
    assert nursery.run(home, ranks) == [0] * ranks, log(home)
    return home


@pytest.fixture(scope="session")
def alone(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Json], Path]:
    """The run of one process for a spec, made once."""
    made: dict[str, Path] = {}

    def run(spec: Json) -> Path:
        key = json.dumps(spec)
        if key not in made:
            made[key] = _train(nursery, tmp_path_factory.mktemp("alone") / "run", spec, 1)
        return made[key]

    return run


def _same(one: Path, other: Path) -> None:
    """Weights and curves to 1e-6."""
    a, b = (tensors(final_checkpoint(home) / "model.safetensors") for home in (one, other))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name].numpy(), b[name].numpy(), rtol=0, atol=1e-6, err_msg=name)
    c, d = series(one), series(other)
    assert c.keys() == d.keys()
    assert [c[k] for k in c] == pytest.approx([d[k] for k in c], rel=2e-6, abs=2e-6)


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


@pytest.mark.parametrize("name", CONTEXTS)
def test_sequences_in_parts_equal_whole_ones(name: str, nursery: Nursery, alone: Callable[[Json], Path], tmp_path: Path) -> None:
    spec, ranks, more = CONTEXTS[name]
    _same(
        alone(spec), _train(nursery, tmp_path / "run", _spread(spec, ranks, **{"context_parallel": {"degree": 2}, **more}), ranks)
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


@pytest.mark.parametrize("name", PIPES)
def test_stages_equal_a_whole_model(name: str, nursery: Nursery, alone: Callable[[Json], Path], tmp_path: Path) -> None:
    spec, ranks, more = PIPES[name]
    _same(alone(spec), _train(nursery, tmp_path / "run", _spread(spec, ranks, pipeline_parallel=more), ranks))


def test_micro_batches_that_do_not_divide_into_pieces_are_refused(nursery: Nursery, tmp_path: Path) -> None:
    spread: Json = {"strategy": "ddp", "processes_per_node": 2, "pipeline_parallel": {"degree": 2}}
    spec = GPT | {"training": {"max_steps": 2, "batch_size": 2}, "distributed": spread}
    home = _prepared(tmp_path / "run", spec)
    assert nursery.run(home, 2) == [2, 2], log(home)
    assert finished(home).reason == "spec_error"
    assert "training.micro_batch_size: 2 samples do not divide into the 4 pieces" in (finished(home).message or "")


DROPOUT = _model(dropout=0.1, attention_dropout=0.1, embedding_dropout=0.1)
RESUMED: dict[str, tuple[Json, int, Json]] = {
    "context": (DROPOUT, 2, {"context_parallel": {"degree": 2}}),
    "pipeline": (DROPOUT, 2, {"pipeline_parallel": {"degree": 2}}),
}


def _longer(spec: Json) -> Json:
    return spec | {"training": spec["training"] | {"max_steps": 60}}


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_has_the_bits_of_the_uninterrupted(name: str, nursery: Nursery, tmp_path: Path) -> None:
    spec, ranks, more = RESUMED[name]
    spec, draw = _longer(_spread(spec, ranks, **more)), random.Random(name)
    whole = _train(nursery, tmp_path / "whole", spec, ranks)
    broken = _prepared(tmp_path / "broken", spec)
    for how in (signal.SIGKILL, signal.SIGTERM):
        running = nursery.start(broken, ranks)
        running.reached(draw.randrange(6, 50))
        running.signal(how)
        assert set(running.wait()) <= {0, 75, -9}, log(broken)
    assert nursery.run(broken, ranks) == [0] * ranks, log(broken)
    assert [e for e in events(broken) if isinstance(e, Started) and e.step > 0], "no attempt resumed"
    assert series(broken) == series(whole)
    assert finished(broken).metrics == finished(whole).metrics
    kept = sorted(path.name for path in final_checkpoint(whole).glob("*.safetensors") if path.name != "ranks.safetensors")
    assert kept
    for name in kept:
        assert same_bits(final_checkpoint(broken) / name, final_checkpoint(whole) / name)


@pytest.mark.parametrize("name", RESUMED)
def test_one_process_goes_on_where_ranks_stopped(
    name: str, nursery: Nursery, alone: Callable[[Json], Path], tmp_path: Path
) -> None:
    _, ranks, more = RESUMED[name]
    spec = _spread(GPT, ranks, **more)
    first = spec | {"training": spec["training"] | {"max_steps": 5}}
    home = _train(nursery, tmp_path / "run", first, ranks)
    state = final_checkpoint(home) / "state.json"
    text = json.loads(state.read_text())
    assert text["samples"] == 70  # 54 in the first epoch
    (home / "spec.json").write_text(json.dumps(spec))
    _reopened(final_checkpoint(home))
    assert nursery.run(home, 1) == [0], log(home)
    a, b = (tensors(final_checkpoint(path) / "model.safetensors") for path in (alone(GPT), home))
    for key in a:
        np.testing.assert_allclose(a[key].numpy(), b[key].numpy(), rtol=0, atol=2e-6, err_msg=key)


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
