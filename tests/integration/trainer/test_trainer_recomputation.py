"""Activations that are computed again: the same bits in all that is learned, and less memory by as much as was planned."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from stoker.plan import plan
from stoker.spec.activation_checkpointing import Full, KeepAll, Selective
from stoker.spec.model import MLP
from tests.support.plan_cases import language, resolved, text
from tests.support.plan_measure import peak_of_training
from tests.support.same_runs import STOP
from tests.support.trainer_runs import Nursery, final_checkpoint, finished, log, same_bits, series
from worker.trainer.activation_checkpointing import recomputing
from worker.trainer.errors import SpecProblem
from worker.trainer.model import build_model

WORDS = "all work and no play makes jack a dull boy. " * 60
SPEC: dict[str, Any] = {
    "task": {"type": "causal_lm"},
    "model": {
        "type": "transformer_decoder",
        "num_layers": 4,
        "hidden_size": 16,
        "num_heads": 2,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "position": {"type": "rope"},
    },
    "data": {
        "source": {"type": "text", "dataset": "set@1"},
        "tokenizer": {"type": "byte"},
        "sequence": {"length": 16},
        "split": {"strategy": "contiguous", "validation": 0.1, "test": 0.1},
    },
    "training": {"max_steps": 7, "batch_size": 8, "micro_batch_size": 4},
    "logging": {"interval": {"steps": 1}},
    "checkpoint": {"interval": {"steps": 5}},
}


def _home(home: Path, spec: dict[str, Any]) -> Path:
    folder = home / "data" / "set@1"
    folder.mkdir(parents=True)
    (folder / "words.txt").write_text(WORDS)
    (home / "spec.json").write_text(json.dumps(spec))
    return home


def _train(nursery: Nursery, home: Path, spec: dict[str, Any], ranks: int = 1) -> Path:
    _home(home, spec)
    assert nursery.run(home, ranks) == [0] * ranks, log(home)
    return home


@pytest.mark.parametrize("mode", ["fp32", "bf16_mixed"])
def test_everything_learned_has_the_same_bits_dropout_included(mode: str, nursery: Nursery, tmp_path: Path) -> None:
    spec = SPEC | {"precision": {"mode": mode}}
    plain = _train(nursery, tmp_path / "plain", spec)
    for name, again in {"full": {"type": "full"}, "some": {"type": "selective", "every": 3}}.items():
        home = _train(nursery, tmp_path / name, spec | {"activation_checkpointing": again})
        for file in ("model.safetensors", "optimizer.safetensors"):
            assert same_bits(final_checkpoint(plain) / file, final_checkpoint(home) / file)
        assert series(home) == series(plain)


@pytest.mark.parametrize(
    "strategy", [{"strategy": "ddp", "processes_per_node": 2}, {"strategy": "fsdp", "processes_per_node": 2}]
)
def test_ranks_compute_again_what_they_share(strategy: dict[str, Any], nursery: Nursery, tmp_path: Path) -> None:
    spec = SPEC | {"distributed": strategy, "training": SPEC["training"] | {"micro_batch_size": 2}}
    plain = _train(nursery, tmp_path / "plain", spec, 2)
    home = _train(nursery, tmp_path / "again", spec | {"activation_checkpointing": {"type": "full"}}, 2)
    assert series(home) == pytest.approx(series(plain), rel=1e-6)
    assert same_bits(final_checkpoint(plain) / "model.safetensors", final_checkpoint(home) / "model.safetensors")


def test_a_run_may_go_on_with_other_checkpointing(nursery: Nursery, tmp_path: Path) -> None:
    """Names are the same, so a checkpoint of one fits the other."""
    whole = _train(nursery, tmp_path / "whole", SPEC | {"training": SPEC["training"] | {"max_steps": 20}})
    broken = _home(tmp_path / "broken", SPEC | {"training": SPEC["training"] | {"max_steps": 20}})
    assert nursery.run(broken, inject=STOP.format(updates=8, number=int(signal.SIGTERM), kill=False)) == [75], log(broken)
    assert finished(broken).step == 8
    text = (broken / "spec.json").read_text()
    (broken / "spec.json").write_text(text[:-1] + ', "activation_checkpointing": {"type": "full"}}')
    assert nursery.run(broken) == [0], log(broken)
    assert same_bits(final_checkpoint(whole) / "model.safetensors", final_checkpoint(broken) / "model.safetensors")


BIG: dict[str, Any] = {"num_layers": 8, "hidden_size": 128, "num_heads": 4}


@pytest.mark.parametrize("again", [{"type": "full"}, {"type": "selective", "every": 2}], ids=["full", "selective"])
def test_the_peak_falls_as_planned(again: dict[str, Any]) -> None:
    def spec(**more: Any) -> Any:
        return resolved(language(BIG, length=256, training={"max_steps": 2, "batch_size": 8}, **more), text(100_000))

    plain, saving = spec(), spec(activation_checkpointing=again)
    memory = plan(saving, text(100_000)).memory
    measured, without = peak_of_training(saving, text(100_000)), peak_of_training(plain, text(100_000))
    assert measured < 0.75 * without
    assert memory.fresh_bytes - memory.runtime_bytes - memory.dataset_bytes == pytest.approx(measured, rel=0.1)


def test_blocks_keep_their_names_and_others_are_refused() -> None:
    spec = resolved(language({"num_layers": 3, "hidden_size": 8, "num_heads": 2}), text(1000)).model
    plain, again = (build_model(spec, (16,), 50, text=True) for _ in range(2))
    assert recomputing(KeepAll(), plain) is plain
    names = list(plain.state_dict())
    assert list(recomputing(Selective(every=2), again).state_dict()) == names
    assert [type(block).__name__ for block in again.blocks] == ["BlockTwice", "Block", "BlockTwice"]
    with pytest.raises(SpecProblem, match="blocks"):
        recomputing(Full(), build_model(MLP(), (4,), 2, text=False))


def test_without_gradients_a_block_is_computed_once() -> None:
    spec = resolved(language({"num_layers": 2, "hidden_size": 8, "num_heads": 2}), text(1000)).model
    model, calls = recomputing(Full(), build_model(spec, (16,), 50, text=True)), []
    model.blocks[0].attention_norm.register_forward_hook(lambda *_: calls.append(1))
    ids = torch.randint(0, 50, (2, 16))
    with torch.no_grad():
        model(ids)
    assert len(calls) == 1
    model(ids).sum().backward()
    assert len(calls) == 3
