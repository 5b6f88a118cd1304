"""Learning from text alone: what comes next, and what is hidden. Held-out text becomes less of a surprise, token by counted token."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from stoker.events import Metrics, Progress
from tests.support.trainer_runs import Nursery, events, final_checkpoint, log, workspace
from worker.trainer.predict import load

Json = dict[str, Any]
WORDS = "the quick brown fox jumps over the lazy dog and runs away from it; " * 60
STEPS, BATCH, LENGTH = 80, 8, 16
MODELS: dict[str, Json] = {
    "causal_lm": {
        "type": "transformer_decoder",
        "position": {"type": "alibi"},
        "window": 8,
        "value_dim": 4,
        "embedding_size": 12,
    },
    "masked_lm": {"type": "transformer_encoder", "embedding_norm": True, "head_transform": True, "segments": 2},
}


def run(nursery: Nursery, root: Path, task: str, ranks: int, **more: Any) -> Path:
    spec: Json = {
        "task": {"type": task},
        "model": MODELS[task] | {"num_layers": 2, "hidden_size": 24, "num_heads": 4, "init": {"type": "normal", "std": 0.15}},
        "data": {"source": {"type": "text", "dataset": "set@1"}, "sequence": {"length": LENGTH}, "split": {"validation": 0.1}},
        "training": {"max_steps": STEPS, "batch_size": BATCH},
        "optimizer": {"type": "adamw", "lr": 0.02},
        "evaluation": {"interval": {"steps": 2}},
        "logging": {"interval": {"steps": 20}},
    }
    if ranks > 1:
        spec["distributed"] = {"strategy": "ddp", "processes_per_node": ranks}
    home = workspace(root, spec | more)
    (home / "data" / "set@1" / "words.txt").write_text(WORDS)
    assert nursery.run(home, ranks) == [0] * ranks, log(home)
    return home


@pytest.mark.proves("ARCH-08", "ARCH-13", "ARCH-15", "INIT-08")
@pytest.mark.parametrize("task", MODELS)
def test_perplexity_of_held_out_text_falls_and_tokens_are_counted(task: str, nursery: Nursery, tmp_path: Path) -> None:
    home = run(nursery, tmp_path / "run", task, 1)
    told = [event for event in events(home) if isinstance(event, Metrics) and "validation/perplexity" in event.values]
    first, last = told[0].values["validation/perplexity"], told[-1].values["validation/perplexity"]
    chances = [WORDS.count(letter) / len(WORDS) for letter in set(WORDS)]
    known = math.exp(-sum(p * math.log(p) for p in chances))
    """Of who knows how often each letter is there, and no more."""
    assert first > 1.5 * known
    assert last < (0.8 if task == "causal_lm" else 1.05) * known
    counted = [event for event in events(home) if isinstance(event, Progress)]
    assert counted[-1].tokens == _seen(STEPS) * LENGTH


@pytest.mark.proves("INIT-08")
@pytest.mark.parametrize("task", MODELS)
def test_two_ranks_learn_what_one_does(task: str, nursery: Nursery, tmp_path: Path) -> None:
    short: Json = {"training": {"max_steps": 4, "batch_size": BATCH}, "optimizer": {"type": "sgd", "lr": 0.1}}
    homes = [run(nursery, tmp_path / f"{ranks}", task, ranks, **short) for ranks in (1, 2)]
    alone, together = (load(final_checkpoint(home)).model.state_dict() for home in homes)
    assert all(torch.allclose(alone[name], together[name], atol=1e-6) for name in alone)


def _seen(steps: int) -> int:
    """Samples of so many steps: the last batch of an epoch is what is left."""
    train = len(WORDS) - round(len(WORDS) * 0.1)
    windows = (train - 1) // LENGTH
    per_epoch = -(-windows // BATCH)
    epochs, rest = divmod(steps, per_epoch)
    return epochs * windows + min(rest * BATCH, windows)
