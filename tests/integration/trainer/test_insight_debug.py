"""The inside of a run as it shows itself, against what we compute from its checkpoints."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from stoker.events import Artifact, Metrics
from tests.support.trainer_runs import Nursery, blobs, events, final_checkpoint, finished, log, same_bits, series, workspace
from worker.trainer.predict import load

STEPS = 6
JOB: dict[str, Any] = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [24, 16], "normalization": {"type": "batch"}, "dropout": 0.3},
    "data": {
        "source": {"type": "arrays", "dataset": "set@1"},
        "split": {"validation": 0.0, "test": 0.0, "strategy": "random"},
        "loader": {"shuffle": False},
    },
    "training": {"max_steps": STEPS, "batch_size": 64},
    "optimizer": {"type": "sgd", "lr": 0.1},
    "checkpoint": {"interval": {"steps": 1}},
    "logging": {"interval": {"steps": 1}},
}
EACH: dict[str, Any] = {"interval": {"steps": 3}}
DEBUG: dict[str, Any] = {
    "model_summary": True,
    "histograms": EACH | {"bins": 20},
    "gradients": EACH,
    "probes": [
        EACH | {"module": "1", "tensors": True, "samples": 11},
        EACH | {"module": "4", "what": "input", "tensors": True},
        EACH | {"module": "4", "what": "gradient", "tensors": True},
    ],
    "profiler": {"start_step": 3, "active_steps": 2, "memory": True, "with_stack": True},
}
TWO = {"distributed": {"strategy": "ddp", "processes_per_node": 2}}


def artifacts(home: Path) -> dict[str, Path]:
    return {event.name: home / event.path for event in events(home) if isinstance(event, Artifact)}


def reported(home: Path, prefix: str) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for event in events(home):
        if isinstance(event, Metrics) and any(key.startswith(prefix) for key in event.values):
            found.setdefault(event.step, {}).update(event.values)
    return found


@pytest.fixture(scope="module")
def shown(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that shows everything."""
    home = workspace(tmp_path_factory.mktemp("shown") / "run", JOB | {"debug": DEBUG}, **blobs(128))
    assert nursery.run(home) == [0], log(home)
    return home


def test_looking_changes_nothing(nursery: Nursery, shown: Path, tmp_path: Path) -> None:
    plain = workspace(tmp_path / "plain", JOB, **blobs(128))
    assert nursery.run(plain) == [0], log(plain)
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert same_bits(final_checkpoint(shown) / name, final_checkpoint(plain) / name)
    looked = {(step, key): value for (step, key), value in series(shown).items() if not key.startswith(("gradient/", "probe/"))}
    assert looked == series(plain)


@pytest.mark.proves("DBG-01")
def test_the_summary_is_that_of_the_model(shown: Path) -> None:
    rows = {row["module"]: row for row in json.loads(artifacts(shown)["model_summary.json"].read_text())["layers"]}
    model = load(final_checkpoint(shown)).model
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda m, i, o, name=name: shapes.update({name: tuple(o.shape[1:])}))
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 12))
    assert list(rows) == [name for name, _ in model.named_modules()]
    for name, module in model.named_modules():
        row = rows[name]
        assert row["type"] == type(module).__name__
        assert tuple(row["output"]) == shapes[name]
        assert row["parameters"] == row["trainable"] == sum(p.numel() for p in module.parameters())
        if isinstance(module, nn.Linear):
            assert row["forward_flops"] == 2 * module.in_features * module.out_features
    assert rows[""]["forward_flops"] == counter.get_total_flops()
    text = artifacts(shown)["model_summary.txt"].read_text()
    assert len(text.splitlines()) == 1 + len(rows)


def gradients_of_step(home: Path, step: int) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Gradients of the step after which `step` were made, from the weights before it, computed here; for a run without noise."""
    model = load(home / "checkpoints" / f"step-{step - 1:08d}").model
    model.train()
    data = blobs(128)
    rows = slice(0, 64) if step % 2 else slice(64, 128)
    F.cross_entropy(model(torch.from_numpy(data["x"][rows])), torch.from_numpy(data["y"][rows])).backward()  # type: ignore[no-untyped-call]
    return model, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.proves("DBG-01")
@pytest.mark.parametrize("strategy", ["single", "ddp", "fsdp"])
def test_gradient_norms_of_layers_are_ours(nursery: Nursery, tmp_path: Path, strategy: str) -> None:
    """With ranks together it is the gradient of the whole batch, of which each may hold a part."""
    ranks, many = (1, {}) if strategy == "single" else (2, {"distributed": {"strategy": strategy, "processes_per_node": 2}})
    quiet = JOB | {
        "model": {"type": "mlp", "hidden_sizes": [24, 16]},
        "debug": {"gradients": EACH, "histograms": EACH | {"bins": 20}},
    }
    home = workspace(tmp_path / "run", quiet | many | {"checkpoint": {"interval": {"steps": 1}}}, **blobs(128))
    assert set(nursery.run(home, ranks)) == {0}, log(home)
    step = STEPS
    model, gradients = gradients_of_step(home, step)
    norms = reported(home, "gradient/")
    assert sorted(norms) == [3, 6]
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert set(norms[step]) == {f"gradient/{name}" for name in layers}
    for name in layers:
        expected = torch.cat([gradients[f"{name}.weight"].flatten(), gradients[f"{name}.bias"]]).norm().item()
        assert norms[step][f"gradient/{name}"] == pytest.approx(expected, rel=1e-5)
    whole = np.sqrt(sum(value**2 for value in norms[step].values()))
    assert whole == pytest.approx(series(home)[step, "train/gradient_norm"], rel=1e-5)
    weights = load_file(home / "checkpoints" / f"step-{step:08d}" / "model.safetensors")
    made = json.loads(artifacts(home)[f"histograms/step-{step:08d}.json"].read_text())
    assert set(made["tensors"]) == {f"{kind}/{name}" for kind in ("weights", "gradients") for name in weights}
    for name, value in weights.items():
        check_histogram(made["tensors"][f"weights/{name}"], value.double().numpy(), 20)
        check_histogram(made["tensors"][f"gradients/{name}"], gradients[name].double().numpy(), 20, rel=1e-4)


def check_histogram(made: dict[str, Any], values: np.ndarray[Any, Any], bins: int, rel: float = 1e-12) -> None:
    assert (made["low"], made["high"]) == (pytest.approx(values.min(), rel=rel), pytest.approx(values.max(), rel=rel))
    assert made["mean"] == pytest.approx(values.mean(), rel=max(rel, 1e-9), abs=1e-7)
    assert made["std"] == pytest.approx(values.std(), rel=max(rel, 1e-9))
    assert made["not_finite"] == 0
    counts, _ = np.histogram(values, bins, (values.min(), values.max()))
    assert sum(made["counts"]) == values.size
    assert np.abs(np.array(made["counts"]) - counts).sum() <= 2, "a value at a border may fall to either side"


@pytest.mark.proves("DBG-02")
def test_probes_are_recomputed_from_the_checkpoint(shown: Path) -> None:
    data, model = blobs(128), load(shown / "checkpoints" / f"step-{STEPS:08d}").model
    assert isinstance(model, nn.Sequential)
    seen: dict[str, torch.Tensor] = {}
    model[1].register_forward_hook(lambda m, i, o: seen.update(output=o))
    model[4].register_forward_hook(lambda m, i, o: seen.update(input=i[0], gradient=o))
    said = reported(shown, "probe/")
    assert sorted(said) == [3, 6]
    for name, what, samples in (("1.output", "output", 11), ("4.input", "input", 8), ("4.gradient", "gradient", 8)):
        x, y = torch.from_numpy(data["x"][:samples]), torch.from_numpy(data["y"][:samples])
        loss = F.cross_entropy(model(x), y)
        expected = torch.autograd.grad(loss, seen["gradient"])[0] if what == "gradient" else seen[what].detach()
        kept = load_file(artifacts(shown)[f"probes/{name}/step-{STEPS:08d}.safetensors"])
        assert torch.equal(kept["inputs"], x)
        torch.testing.assert_close(kept["value"], expected, rtol=1e-6, atol=1e-7)
        numbers = expected.double().numpy()
        for key, value in {"mean": numbers.mean(), "std": numbers.std(), "min": numbers.min(), "max": numbers.max()}.items():
            assert said[STEPS][f"probe/{name}.{key}"] == pytest.approx(value, rel=1e-5, abs=1e-7)


@pytest.mark.proves("DBG-02")
def test_a_module_that_is_not_there_is_refused_before_the_first_step(nursery: Nursery, tmp_path: Path) -> None:
    probes = [{"module": "blocks.0.atention"}]
    spec: dict[str, Any] = {
        "task": {"type": "causal_lm"},
        "model": {"type": "transformer_decoder", "num_layers": 1, "hidden_size": 8, "num_heads": 2},
        "data": {"source": {"type": "text", "dataset": "set@1"}, "sequence": {"length": 8}},
        "training": {"max_steps": 1, "batch_size": 2},
        "debug": {"probes": probes},
    }
    home = workspace(tmp_path / "run", spec)
    (home / "data" / "set@1" / "text.txt").write_text("to be or not to be. " * 40)
    assert nursery.run(home) == [2]
    end = finished(home)
    assert (end.reason, end.step) == ("spec_error", 0)
    assert "debug.probes[0].module" in end.message
    assert "blocks.0.attention" in end.message
    (home / "spec.json").write_text(json.dumps(spec | {"debug": {"probes": [{"module": "blocks"}]}}))
    assert nursery.run(home) == [2]
    assert "blocks is never called" in finished(home).message


@pytest.mark.proves("DBG-01")
@pytest.mark.parametrize("ranks", [1, 2])
def test_traces_are_those_of_the_steps_asked_for(nursery: Nursery, shown: Path, tmp_path: Path, ranks: int) -> None:
    home = shown
    if ranks == 2:
        home = workspace(
            tmp_path / "run", JOB | TWO | {"debug": {"profiler": {"start_step": 2, "active_steps": 2}}}, **blobs(128)
        )
        assert nursery.run(home, 2) == [0, 0], log(home)
    found = artifacts(home)
    assert {name for name in found if name.startswith("trace/")} == {
        "trace/table.txt",
        *(f"trace/rank{rank}.json.gz" for rank in range(ranks)),
    }
    for rank in range(ranks):
        trace = json.loads(gzip.decompress(found[f"trace/rank{rank}.json.gz"].read_bytes()))
        names = [event.get("name", "") for event in trace["traceEvents"]]
        assert names.count("aten::nll_loss_forward") == 2, "one forward pass in each of two steps"
        assert ("[memory]" in names) is (ranks == 1), "recorded where it was asked for"
    assert "aten::addmm" in found["trace/table.txt"].read_text()


@pytest.mark.proves("DBG-02")
def test_the_source_of_nan_is_named(nursery: Nursery, tmp_path: Path) -> None:
    """Weights that have grown without bound give infinite outputs; the message names the operation, and the log its place."""
    wild = JOB | {
        "optimizer": {"type": "sgd", "lr": 1e12},
        "logging": {"interval": {"steps": 1000}},
        "debug": {"detect_anomaly": True},
    }
    home = workspace(tmp_path / "run", wild | {"model": {"type": "mlp", "hidden_sizes": [8]}}, **blobs(128))
    assert nursery.run(home) == [3], log(home)
    end = finished(home)
    assert end.reason == "nan_loss"
    named = re.search(r"Function '(\w+Backward0)' returned nan values", end.message)
    assert named is not None
    assert "Traceback of forward call" in log(home)
    calm = workspace(tmp_path / "calm", JOB | {"debug": {"detect_anomaly": True}}, **blobs(128))
    assert nursery.run(calm) == [0], log(calm)
