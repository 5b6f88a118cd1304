"""What runs begin with and which of it learns, through the whole trainer, on one process and on two."""

import hashlib
import json
import math
import shutil
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stoker.events import Metrics, Notice, Started
from tests.support.trainer_runs import Nursery, blobs, events, final_checkpoint, finished, log, same_bits, tensors, workspace
from worker.trainer.checkpoint import load_model
from worker.trainer.checkpoint.read import Stored

JOB = "job_" + "0" * 26
KEEP = "from worker.trainer.checkpoint import keep\nkeep.prune.__defaults__ = (1000,)"
"""Every checkpoint stays on the disk, to be looked at."""
STILL = 1e-12
"""A learning rate that moves no float32 weight of ordinary size."""


def spec(**sections: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "task": {"type": "classification", "num_classes": 4},
        "model": {"type": "mlp", "hidden_sizes": [16, 8], "normalization": {"type": "batch"}},
        "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"strategy": "random", "validation": 0.2}},
        "loss": {"type": "cross_entropy"},
        "optimizer": {"type": "adamw", "lr": 0.02, "weight_decay": 0.1},
        "training": {"max_steps": 6, "batch_size": 32, "micro_batch_size": 8},
        "evaluation": {"metrics": [{"type": "accuracy"}]},
        "checkpoint": {"interval": {"steps": 2}, "keep_last": 1000},
        "reproducibility": {"seed": 5},
    }
    for name, value in sections.items():
        whole[name] = {**whole[name], **value} if isinstance(whole.get(name), dict) and "type" not in value else value
    ranks = whole.get("distributed", {}).get("processes_per_node", 1)
    whole["training"] = {"gradient_accumulation_steps": 4 // ranks, **whole["training"]}
    return whole


def run(
    nursery: Nursery, home: Path, job: dict[str, Any], data: dict[str, Any], *, ranks: int = 1, start: Path | None = None
) -> Path:
    """The last checkpoint. `start`: a checkpoint to be put where the agent puts it."""
    workspace(home, job, **data)
    if start is not None:
        shutil.copytree(start, home / "data" / "start")
    assert nursery.run(home, ranks, KEEP) == [0] * ranks, (finished(home).message, log(home))
    return final_checkpoint(home)


def warm(**more: Any) -> dict[str, Any]:
    return {"start": {"type": "warm", "checkpoint": {"job": JOB, "checkpoint": 6}, **more}}


def notice(home: Path) -> Notice:
    return next(e for e in events(home) if isinstance(e, Notice) and e.code == "weights_loaded")


def first_loss(home: Path) -> float:
    return next(e.values["train/loss"] for e in events(home) if isinstance(e, Metrics) and "train/loss" in e.values)


@pytest.fixture(scope="module")
def source(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of six steps, and the directory of its run."""
    return run(nursery, tmp_path_factory.mktemp("source") / "run", spec(), blobs())


@pytest.mark.proves("INIT-05")
def test_a_cold_start_is_its_seed_and_reads_no_checkpoint(nursery: Nursery, source: Path, tmp_path: Path) -> None:
    job = spec(optimizer={"type": "sgd", "lr": STILL}, training={"max_steps": 1})
    homes = [tmp_path / name for name in ("one", "two", "other")]
    given = [run(nursery, homes[0], job, blobs()), run(nursery, homes[1], job, blobs(), start=source)]
    given.append(run(nursery, homes[2], job | {"reproducibility": {"seed": 6}}, blobs()))
    weights = [tensors(path / "model.safetensors") for path in given]
    torch.manual_seed(5)  # what the seed of the job is for
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert not torch.equal(weights[0]["0.weight"], weights[2]["0.weight"])
    assert not any(isinstance(e, Notice) and e.code == "weights_loaded" for e in events(homes[1]))


@pytest.mark.proves("INIT-06")
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_warm_start_has_the_weights_and_nothing_else(nursery: Nursery, source: Path, tmp_path: Path, ranks: int) -> None:
    more = {} if ranks == 1 else {"distributed": {"strategy": "ddp", "processes_per_node": 2}}
    job = spec(
        initialization=warm(), optimizer={"type": "adamw", "lr": STILL, "weight_decay": 0.0}, training={"max_steps": 1}, **more
    )
    path = run(nursery, tmp_path / "run", job, blobs(), ranks=ranks, start=source)
    before, after = tensors(source / "model.safetensors"), tensors(path / "model.safetensors")
    learned = [name for name in before if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert learned
    assert all(before[name].numpy().tobytes() == after[name].numpy().tobytes() for name in learned)
    moments = tensors(path / "optimizer.safetensors")
    assert {float(v) for name, v in moments.items() if name.endswith(".step")} == {1.0}
    started = next(e for e in events(tmp_path / "run") if isinstance(e, Started))
    assert started.step == 0
    assert json.loads((path / "state.json").read_bytes())["step"] == 1


@pytest.mark.proves("INIT-07")
def test_pretrained_weights_are_verified_reported_and_better_than_none(nursery: Nursery, source: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256((source / "model.safetensors").read_bytes()).hexdigest()
    losses = {}
    for name, start in {
        "cold": {"type": "cold"},
        "good": {"type": "pretrained", "source": "weights@2", "sha256": digest},
        "other": {"type": "pretrained", "source": "weights@2", "sha256": "0" * 64},
        "odd": {"type": "pretrained", "source": "odd@1"},
        "lenient": {"type": "pretrained", "source": "odd@1", "strict": False},
    }.items():
        job = spec(initialization={"start": start}, training={"max_steps": 1}, logging={"interval": {"steps": 1}})
        home = workspace(tmp_path / name, job, **blobs())
        (home / "data" / "weights@2").mkdir()
        shutil.copy(source / "model.safetensors", home / "data" / "weights@2")
        held = load_file(source / "model.safetensors")
        (home / "data" / "odd@1").mkdir()
        save_file(
            {**{k: v for k, v in held.items() if k != "0.bias"}, "extra.weight": torch.ones(2)}, home / "data/odd@1/a.safetensors"
        )
        codes, said = nursery.run(home), finished(home).message
        if name in ("other", "odd"):
            assert codes == [2], log(home)
            assert ("sha256" in said and digest in said) if name == "other" else ("0.bias" in said and "extra.weight" in said)
            continue
        assert codes == [0], (said, log(home))
        losses[name] = first_loss(home)
        if name == "lenient":
            assert notice(home).data["missing"] == ["0.bias"]
            assert notice(home).data["unexpected"] == ["extra.weight"]
            assert notice(home).level == "warning"
    assert losses["good"] < losses["cold"]


@pytest.mark.proves("INIT-10")
def test_a_transfer_keeps_the_backbone_and_draws_a_head_for_other_classes(nursery: Nursery, source: Path, tmp_path: Path) -> None:
    data = blobs(classes=7, seed=3)
    still = {
        "optimizer": {"type": "sgd", "lr": STILL},
        "training": {"max_steps": 1},
        "task": {"type": "classification", "num_classes": 7},
    }
    path = run(nursery, tmp_path / "run", spec(initialization=warm(reset_head=True), **still), data, start=source)
    cold = run(nursery, tmp_path / "cold", spec(**still), data)
    before, after, fresh = (tensors(p / "model.safetensors") for p in (source, path, cold))
    weights = [n for n in before if n.endswith(("weight", "bias"))]
    assert after["6.weight"].shape == (7, 8)
    for name in weights:
        wanted = fresh if name.startswith("6.") else before
        assert torch.equal(after[name], wanted[name]), name
    assert notice(tmp_path / "run").data["fresh"] == ["6.bias", "6.weight"]
    home = workspace(tmp_path / "refused", spec(initialization=warm(), **still), **data)
    shutil.copytree(source, home / "data" / "start")
    assert nursery.run(home) == [2]
    assert "reset_head" in finished(home).message


TUNED = {
    "freeze": ["0.*", "1.*"],
    "unfreeze_at": [{"pattern": "3.*", "at": {"steps": 3}}, {"pattern": "4.*", "at": {"epochs": 1}}],
    "layer_lr_decay": 0.5,
}


@pytest.mark.proves("INIT-09")
@pytest.mark.parametrize("strategy", ["single", "ddp", "fsdp"])
def test_frozen_weights_stay_bit_by_bit_and_others_join_when_they_should(
    nursery: Nursery, source: Path, tmp_path: Path, strategy: str
) -> None:
    ranks = 1 if strategy == "single" else 2
    how = {} if ranks == 1 else {"distributed": {"strategy": strategy, "processes_per_node": 2}}
    job = spec(
        initialization=warm() | {"finetune": TUNED}, training={"max_steps": 8}, checkpoint={"interval": {"steps": 1}}, **how
    )
    run(nursery, tmp_path / "run", job, blobs(), ranks=ranks, start=source)
    before = tensors(source / "model.safetensors")
    if strategy == "fsdp":
        after = tensors(final_checkpoint(tmp_path / "run") / "model.safetensors")
        assert all(torch.equal(after[n], before[n]) for n in before if n.startswith(("0.", "1.")))
        assert not torch.equal(after["6.weight"], before["6.weight"])
        return
    saved = {step: tensors(tmp_path / f"run/checkpoints/step-{step:08d}/model.safetensors") for step in range(1, 9)}
    for step, now in saved.items():
        for name in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
            assert now[name].numpy().tobytes() == before[name].numpy().tobytes(), (step, name)
        assert torch.equal(now["3.weight"], before["3.weight"]) == (step <= 3), step
        assert torch.equal(now["4.running_mean"], before["4.running_mean"]) == (step <= 6), step  # 163 samples: 6 steps an epoch
        assert not torch.equal(now["6.weight"], before["6.weight"])
    moments = tensors(tmp_path / "run/checkpoints/step-00000008/optimizer.safetensors")
    assert {name.rpartition(".")[0] for name in moments} == {"3.weight", "3.bias", "4.weight", "4.bias", "6.weight", "6.bias"}
    assert {float(moments[f"{n}.step"]) for n in ("3.weight", "6.bias")} == {5.0, 8.0}


@pytest.mark.parametrize("ranks", [1, 2])
def test_frozen_norms_keep_their_statistics_in_an_average_too(nursery: Nursery, source: Path, tmp_path: Path, ranks: int) -> None:
    """Those of the others are computed anew for the averaged weights."""
    how = {} if ranks == 1 else {"distributed": {"strategy": "ddp", "processes_per_node": 2}}
    training = {"max_steps": 6, "swa": {"start": {"steps": 2}, "every": {"steps": 1}}}
    job = spec(initialization=warm() | {"finetune": {"freeze": ["0.*", "1.*"]}}, training=training, **how)
    path = run(nursery, tmp_path / "run", job, blobs(), ranks=ranks, start=source)
    before, after = tensors(source / "model.safetensors"), load_model(path).model.state_dict()
    for name in ("1.weight", "1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(after[name], before[name]), name
    with torch.no_grad():
        x = torch.from_numpy(blobs()["x"])
        h = x @ after["0.weight"].T + after["0.bias"]
        scale = after["1.weight"] / (after["1.running_var"] + 1e-5).sqrt()
        h = torch.relu((h - after["1.running_mean"]) * scale + after["1.bias"]) @ after["3.weight"].T + after["3.bias"]
    assert torch.allclose(after["4.running_mean"], h.mean(0), atol=0.2), "of about these samples"
    assert not torch.allclose(after["4.running_mean"], before["4.running_mean"], atol=1e-3)


LORA = {"adapter": {"type": "lora", "rank": 3, "alpha": 6.0, "dropout": 0.1, "targets": ["?"], "train": ["6.bias"]}}


@pytest.mark.proves("INIT-09")
@pytest.mark.parametrize("ranks", [1, 2])
def test_adapters_learn_in_the_place_of_weights_and_merge_into_them(
    nursery: Nursery, source: Path, tmp_path: Path, ranks: int
) -> None:
    how = {} if ranks == 1 else {"distributed": {"strategy": "fsdp", "processes_per_node": 2}}
    job = spec(
        initialization=warm() | {"finetune": LORA},
        checkpoint={"interval": {"steps": 2}, "export": ["safetensors"], "keep_last": 1000},
        **how,
    )
    path = run(nursery, tmp_path / "run", job, blobs(), ranks=ranks, start=source)
    before, after = tensors(source / "model.safetensors"), tensors(path / "model.safetensors")
    for name in before:
        assert torch.equal(after[name], before[name]) == (name != "6.bias"), name
    assert after["3.lora_b"].any()
    learned = {n for n in after if ".lora_" in n or n == "6.bias"}
    with Stored(path) as stored:
        assert {name.rpartition(".")[0] for name in stored.names("optimizer")} == learned
    exported = load_file(tmp_path / "run/artifacts/export/safetensors/model.safetensors")
    assert exported.keys() == before.keys()
    x = torch.from_numpy(blobs()["x"])
    plain = load_model(path).model
    with torch.no_grad():
        h = x
        for layer in ("0", "3", "6"):  # as the formula of the paper has it, by hand
            a, b = after[f"{layer}.lora_a"], after[f"{layer}.lora_b"]
            h = h @ after[f"{layer}.weight"].T + after[f"{layer}.bias"] + (h @ a.T) @ b.T * (6.0 / 3)
            if layer != "6":
                norm = str(int(layer) + 1)
                scale = after[f"{norm}.weight"] / (after[f"{norm}.running_var"] + 1e-5).sqrt()
                h = torch.relu((h - after[f"{norm}.running_mean"]) * scale + after[f"{norm}.bias"])
        torch.testing.assert_close(plain(x), h, atol=1e-6, rtol=1e-6)
    assert all(torch.equal(exported[n], v) for n, v in plain.state_dict().items())
    started = next(e for e in events(tmp_path / "run") if isinstance(e, Started))
    assert started.parameters == sum(after[name].numel() for name in learned)


@pytest.mark.parametrize("tune", [TUNED, LORA], ids=["later", "lora"])
def test_a_killed_run_goes_on_with_the_same_bits(nursery: Nursery, source: Path, tmp_path: Path, tune: dict[str, Any]) -> None:
    job = spec(initialization=warm() | {"finetune": tune}, training={"max_steps": 8})
    whole = run(nursery, tmp_path / "whole", job, blobs(), start=source)
    home = workspace(tmp_path / "cut", job, **blobs())
    shutil.copytree(source, home / "data" / "start")
    nursery.run(
        home,
        inject="import os\nfrom worker.trainer import loop\nonce = loop.step\n"
        "def step(run):\n    os.kill(os.getpid(), 9) if run.clock.step == 5 else once(run)\nloop.step = step\n",
    )
    shutil.rmtree(home / "data" / "start")  # a checkpoint has all that a run needs
    assert nursery.run(home) == [0], log(home)
    assert same_bits(whole / "model.safetensors", final_checkpoint(home) / "model.safetensors")
    assert same_bits(whole / "optimizer.safetensors", final_checkpoint(home) / "optimizer.safetensors")


@pytest.mark.proves("INIT-01")
def test_modules_can_start_in_a_way_of_their_own(nursery: Nursery, tmp_path: Path) -> None:
    still = {"optimizer": {"type": "sgd", "lr": STILL}, "training": {"max_steps": 1}}
    overrides = [
        {"pattern": "?", "init": {"type": "he", "nonlinearity": "linear"}},
        {"pattern": "6", "init": {"type": "constant"}},
    ]
    job = spec(model={"hidden_sizes": [512, 256]}, initialization={"overrides": overrides}, **still)
    after = tensors(run(nursery, tmp_path / "run", job, blobs()) / "model.safetensors")
    assert float(after["6.weight"].abs().max()) < 1e-10
    assert float(after["3.weight"].std()) == pytest.approx(1 / math.sqrt(512), rel=0.01)
    home = workspace(
        tmp_path / "odd", spec(initialization={"overrides": [{"pattern": "head*", "init": {"type": "he"}}]}), **blobs()
    )
    assert nursery.run(home) == [2]
    assert "overrides[0].pattern: 'head*' matches no layer" in finished(home).message


@pytest.mark.proves("INIT-09")
def test_rates_by_layer_are_what_the_spec_says(nursery: Nursery, source: Path, tmp_path: Path) -> None:
    moved = {}
    for name, tune in (("even", None), ("decayed", {"layer_lr_decay": 0.5})):
        job = spec(initialization=warm() | {"finetune": tune}, optimizer={"type": "sgd", "lr": 0.5}, training={"max_steps": 1})
        after = tensors(run(nursery, tmp_path / name, job, blobs(), start=source) / "model.safetensors")
        moved[name] = {n: after[n].double() - v.double() for n, v in tensors(source / "model.safetensors").items()}
    for names, factor in (
        (("0.weight", "1.weight", "1.bias"), 0.25),
        (("3.weight", "4.bias"), 0.5),
        (("6.weight", "6.bias"), 1.0),
    ):
        for name in names:
            assert moved["even"][name].any()
            torch.testing.assert_close(moved["decayed"][name], factor * moved["even"][name], atol=1e-7, rtol=1e-4)


CUT = math.sqrt(1 - 2 * 1.5 * NormalDist().pdf(1.5) / (2 * NormalDist().cdf(1.5) - 1))
"""Standard deviation of a normal distribution that is cut at 1.5 of its own."""
SPREADS: dict[str, tuple[dict[str, Any], float, float | None]] = {
    "0": ({"type": "normal", "std": 0.03}, 0.03, None),
    "2": ({"type": "uniform", "bound": 0.1}, 0.1 / math.sqrt(3), 0.1),
    "4": ({"type": "trunc_normal", "std": 0.02, "cutoff": 1.5}, 0.02 * CUT, 0.03),
    "6": (
        {"type": "xavier", "distribution": "uniform", "gain": 1.3},
        1.3 * math.sqrt(2 / (1024 + 512)),
        1.3 * math.sqrt(6 / (1024 + 512)),
    ),
    "8": ({"type": "xavier", "distribution": "normal", "gain": 0.7}, 0.7 * math.sqrt(2 / (1024 + 512)), None),
    "10": ({"type": "he"}, math.sqrt(2 / 512), None),
}
"""Layers of a network of 1024 x 512 weights each: how they begin, their standard deviation, their largest value."""


@pytest.mark.proves("INIT-01", "INIT-02", "INIT-03", "INIT-04")
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_begins_with_the_spread_and_the_bounds_that_are_asked_for(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    """The first layer by the model's own scheme, the others by overrides."""
    own, *others = SPREADS.items()
    job = spec(
        model={"type": "mlp", "hidden_sizes": [512, 1024] * 3, "init": own[1][0]},
        initialization={"overrides": [{"pattern": name, "init": scheme} for name, (scheme, _, _) in others]},
        optimizer={"type": "sgd", "lr": STILL},
        training={"max_steps": 1},
        distributed={"strategy": "ddp", "processes_per_node": ranks} if ranks > 1 else {"strategy": "single"},
    )
    begun = tensors(run(nursery, tmp_path / "run", job, blobs(count=60, features=1024), ranks=ranks) / "model.safetensors")
    for name, (scheme, spread, bound) in SPREADS.items():
        weight, bias = begun[f"{name}.weight"], begun[f"{name}.bias"]
        assert weight.numel() == 1024 * 512
        assert float(weight.std()) == pytest.approx(spread, rel=0.01), scheme
        assert abs(float(weight.mean())) < 0.01 * spread
        assert float(bias.abs().max()) < 1e-9, "what is drawn is weights"
        largest = float(weight.abs().max())
        assert largest > 4 * spread if bound is None else largest == pytest.approx(bound, rel=0.01), scheme
