"""A model in shards, or with its layers cut, computes what one process computes, and resumes to the bit."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from stoker.events import Notice, Started
from tests.support.same_runs import STOP, Alone, assert_same, assert_same_bits, interrupted
from tests.support.thorough import left
from tests.support.trainer_runs import Nursery, events, final_checkpoint, finished, log, prepared, tensors, trained
from worker.trainer.predict import load

Json = dict[str, Any]

GPT: Json = {
    "task": {"type": "causal_lm"},
    "model": {
        "type": "transformer_decoder",
        "num_layers": 2,
        "hidden_size": 16,
        "num_heads": 4,
        "bias": False,  # the key's has a gradient of zero, of which Adam would make steps out of rounding errors
        "init": {"type": "normal", "std": 0.2},
    },
    "data": {
        "source": {"type": "text", "dataset": "set@1"},
        "tokenizer": {"type": "char"},
        "sequence": {"length": 8},
        "split": {"validation": 0.15, "test": 0.1},
    },
    "optimizer": {"type": "adamw", "lr": 0.001},
    # 56 windows to train on: the last batch of an epoch has 8
    "training": {"max_steps": 9, "batch_size": 16, "gradient_clipping": {"type": "norm", "max_norm": 0.5}},
    "evaluation": {"interval": {"steps": 7}, "metrics": ["perplexity", "bits_per_byte"]},
    "logging": {"interval": {"steps": 3}, "gradient_norm": True},
    "checkpoint": {"interval": {"steps": 6}},
}
MLP: Json = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [33, 20], "normalization": {"type": "layer"}},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0.07}},
    "optimizer": {"type": "adamw", "lr": 0.001},
    # 148 training samples: the last batch of an epoch has 20, which leaves ranks different numbers of samples
    "training": {"epochs": 4, "batch_size": 64, "micro_batch_size": 4, "early_stopping": {"patience": 9}},
    "loss": {"type": "cross_entropy", "class_weights": "balanced"},
    "evaluation": {"interval": {"steps": 5}, "metrics": ["accuracy", "auroc"]},
    "logging": {"interval": {"steps": 3}, "gradient_norm": True},
    "checkpoint": {"interval": {"steps": 4}},
}


def _with(spec: Json, distributed: Json, **training: Any) -> Json:
    return spec | {"distributed": distributed, "training": spec["training"] | training}


def _fsdp(ranks: int, **more: Any) -> Json:
    return {"strategy": "fsdp", "processes_per_node": ranks, **more}


def _ddp(ranks: int, **more: Any) -> Json:
    return {"strategy": "ddp", "processes_per_node": ranks, **more}


STRATEGIES: dict[str, tuple[int, Json]] = {
    "fsdp": (2, _fsdp(2)),
    "fsdp-kept": (2, _fsdp(2, reshard_after_forward=False)),
    "hsdp": (4, _fsdp(4, replicate=2)),
}
TENSOR: dict[str, tuple[int, Json]] = {
    "tp": (2, _ddp(2, tensor_parallel={"degree": 2})),
    "ddp-tp": (4, _ddp(4, tensor_parallel={"degree": 2})),
    "ddp-sp": (4, _ddp(4, tensor_parallel={"degree": 2, "sequence_parallel": True})),
    "fsdp-tp": (4, _fsdp(4, tensor_parallel={"degree": 2})),
    "fsdp-sp": (4, _fsdp(4, tensor_parallel={"degree": 2, "sequence_parallel": True})),
}
"""Mesh of data parts x 2."""


EQUAL = [(model, name) for name in STRATEGIES for model in ("gpt", "mlp")]


@pytest.mark.proves("DIST-01", "DIST-03", "DIST-10")
@pytest.mark.parametrize(("model", "name"), left(EQUAL, {("gpt", "fsdp-kept"), ("mlp", "fsdp"), ("mlp", "hsdp")}))
def test_it_equals_one_process(model: str, name: str, nursery: Nursery, alone: Alone, tmp_path: Path) -> None:
    ranks, distributed = STRATEGIES[name]
    spec = GPT if model == "gpt" else MLP
    home = trained(nursery, tmp_path / "run", _with(spec, distributed, micro_batch_size=2), ranks)
    assert_same(alone(spec), home)


MODERN: Json = {
    **GPT["model"],
    "num_kv_heads": 2,
    "position": {"type": "rope"},
    "normalization": {"type": "rms"},
    "gated_ffn": True,
    "activation": "silu",
    "qk_norm": True,
    "tie_embeddings": False,
}
SINES: Json = {**GPT["model"], "position": {"type": "sinusoidal"}, "norm_placement": "post"}
BENT: Json = {**GPT["model"], "window": 5, "attention_softcap": 4.0, "final_softcap": 6.0, "value_dim": 6, "gated_ffn": True}


@pytest.mark.proves("DIST-06")
@pytest.mark.parametrize("name", left(TENSOR, {"ddp-tp", "ddp-sp", "fsdp-tp"}))
def test_cut_layers_equal_whole_ones(name: str, nursery: Nursery, alone: Alone, tmp_path: Path) -> None:
    ranks, distributed = TENSOR[name]
    home = trained(nursery, tmp_path / "run", _with(GPT, distributed, micro_batch_size=4), ranks)
    assert_same(alone(GPT), home)


DECODERS = {"modern": MODERN, "sines": SINES, "bent": BENT}
FOUR_RANKS = [(model, name) for model in DECODERS for name in ("ddp-sp", "fsdp-tp")]


@pytest.mark.proves("DIST-06")
@pytest.mark.parametrize(
    ("model", "name"), [("sines", "tp"), ("bent", "tp"), *left(FOUR_RANKS, {*FOUR_RANKS} - {("modern", "fsdp-tp")})]
)
def test_any_decoder_can_be_cut(model: str, name: str, nursery: Nursery, alone: Alone, tmp_path: Path) -> None:
    ranks, distributed = TENSOR[name]
    spec = GPT | {"model": DECODERS[model]}
    assert_same(alone(spec), trained(nursery, tmp_path / "run", _with(spec, distributed), ranks))


NOISY: Json = GPT | {
    "model": {**GPT["model"], "dropout": 0.1, "embedding_dropout": 0.1},
    "training": GPT["training"] | {"max_steps": 13, "early_stopping": {"patience": 99}},
}
QUIET: Json = GPT | {"training": NOISY["training"]}
RESUMED: dict[str, tuple[int, Json]] = {
    "fsdp": (2, _with(NOISY, _fsdp(2), micro_batch_size=4)),
    "hsdp": (4, _with(NOISY, _fsdp(4, replicate=2))),
    "tp": (2, _with(NOISY, _ddp(2, tensor_parallel={"degree": 2}), micro_batch_size=8)),
    "fsdp-sp": (4, _with(QUIET, _fsdp(4, tensor_parallel={"degree": 2, "sequence_parallel": True}))),
}


@pytest.mark.proves("DIST-03", "DIST-06")
@pytest.mark.parametrize("name", left(RESUMED, {"hsdp", "fsdp-sp"}))
def test_a_killed_run_goes_on_with_the_bits_of_one_that_never_was(name: str, nursery: Nursery, tmp_path: Path) -> None:
    ranks, spec = RESUMED[name]
    whole = trained(nursery, tmp_path / "whole", spec, ranks)
    broken = interrupted(nursery, prepared(tmp_path / "broken", spec), ranks, (8, signal.SIGKILL))
    assert_same_bits(whole, broken)
    assert len(list(final_checkpoint(whole).glob("*.safetensors"))) >= 2 + ranks, "each rank writes what it holds"


@pytest.mark.proves("DIST-03")
def test_a_run_goes_on_with_other_ranks_and_another_strategy(nursery: Nursery, alone: Alone, tmp_path: Path) -> None:
    """One leg after another, each stopped at some step; every sample is seen once, and dropout is off."""
    spec = GPT | {"training": GPT["training"] | {"max_steps": 14, "micro_batch_size": 4}}
    legs: list[tuple[int, Json]] = [
        (4, _fsdp(4)),
        (2, _fsdp(2)),
        (1, {"strategy": "single"}),
        (4, _ddp(4, tensor_parallel={"degree": 2})),
        (2, _ddp(2)),
        (4, _fsdp(4, tensor_parallel={"degree": 2})),
    ]
    home = prepared(tmp_path / "run", spec)
    for leg, (ranks, distributed) in enumerate(legs):
        (home / "spec.json").write_text(json.dumps(_with(spec, distributed)))
        last = leg + 1 == len(legs)
        stop = "" if last else STOP.format(updates=1, number=int(signal.SIGTERM), kill=False)
        assert nursery.run(home, ranks, stop) == [0 if last else 75] * ranks, log(home)
    starts = [e.step for e in events(home) if isinstance(e, Started)]
    assert len(starts) == len(set(starts)) == len(legs), "each leg made some steps"
    assert finished(home).reason == "completed"
    assert_same(alone(spec), home)


def test_a_sharded_run_can_be_used(nursery: Nursery, alone: Alone, tmp_path: Path) -> None:
    home = trained(nursery, tmp_path / "run", _with(GPT, _fsdp(2)), 2)
    one, other = load(final_checkpoint(home)), load(final_checkpoint(alone(GPT)))
    assert one.generate("the", tokens=20, temperature=0) == other.generate("the", tokens=20, temperature=0)


@pytest.mark.proves("DIST-08")
@pytest.mark.parametrize(
    ("job", "memory_gb", "strategy"),
    [
        pytest.param(MLP, None, "ddp: the fastest", id="room"),
        pytest.param(MLP, 0.5, "nothing smaller is left", id="none", marks=pytest.mark.thorough),
        pytest.param(GPT, 0.5, "fsdp, activations computed again needs", id="none-and-blocks"),
    ],
)
def test_auto_decides_says_so_and_computes_the_same(
    job: Json, memory_gb: float | None, strategy: str, nursery: Nursery, alone: Alone, tmp_path: Path
) -> None:
    """PyTorch itself needs more than the 256 MiB of each rank: the strategy that needs least is taken."""
    spec = _with(job, {"strategy": "auto", "processes_per_node": 2}) | {"resources": {"memory_gb": memory_gb}}
    home = trained(nursery, tmp_path / "run", spec, 2)
    said = [e.message for e in events(home) if isinstance(e, Notice) and e.code == "strategy_chosen"]
    assert len(said) == 1
    assert strategy in said[0]
    assert (final_checkpoint(home) / "shards.json").exists() == (memory_gb is not None)
    assert_same(alone(job), home)


@pytest.mark.proves("DIST-03")
def test_each_rank_holds_its_share_of_the_weights_and_of_the_optimizer(nursery: Nursery, tmp_path: Path) -> None:
    home = trained(nursery, tmp_path / "run", _with(GPT, _fsdp(2), max_steps=7), 2)
    held = [tensors(home / "checkpoints" / "step-00000006" / f"shard-000{rank}.safetensors") for rank in (0, 1)]
    whole = sum(t.numel() for t in tensors(final_checkpoint(home) / "model.safetensors").values())
    for store, copies in (("model/", 1), ("optimizer/", 2)):
        shares = [sum(t.numel() for name, t in part.items() if name.startswith(store) and t.dim()) for part in held]
        assert sum(shares) == pytest.approx(copies * whole, rel=0.01)
        assert max(shares) < 0.55 * copies * whole
