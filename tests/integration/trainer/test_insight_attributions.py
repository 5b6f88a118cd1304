"""What finished models pay attention to, against formulas worked out on the loaded checkpoint."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from stoker.spec import interpretability as asked
from tests.support.late import Late
from tests.support.trainer_runs import Nursery, blobs, events, final_checkpoint, finished, log, series, workspace
from worker.trainer.interpretability.attribution import Subject, Target, explain
from worker.trainer.predict import Predictor, load

captum = Late("captum.attr")
inspection = Late("sklearn.inspection")

COLUMNS = ("noise", "weak", "signal", "other")


def table(home: Path) -> None:
    """Three classes that follow from one column, another that hints at them, and two that say nothing."""
    draw = np.random.default_rng(3)
    values = draw.normal(size=(400, 4))
    classes = np.digitize(values[:, 2] + 0.15 * values[:, 1], [-0.5, 0.5])
    rows = [",".join([*(f"{value:.6f}" for value in row), str(label)]) for row, label in zip(values, classes, strict=True)]
    (home / "data" / "set@1" / "rows.csv").write_text("\n".join([",".join([*COLUMNS, "y"]), *rows]) + "\n")


TABLE: dict[str, Any] = {
    "task": {"type": "classification", "target": "y"},
    "model": {"type": "mlp", "hidden_sizes": [16], "activation": "tanh"},
    "data": {
        "source": {"type": "csv", "dataset": "set@1"},
        "split": {"validation": 0.2, "test": 0.2},
        "normalization": {"type": "standard"},
    },
    "training": {"epochs": 25, "batch_size": 16},
    "optimizer": {"type": "adamw", "lr": 0.01},
}


def attributions(home: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    return load_file(home / "artifacts" / "attributions.safetensors"), json.loads(
        (home / "artifacts" / "attributions.json").read_text()
    )


def double(predictor: Predictor) -> nn.Module:
    return predictor.model.double().eval()


@pytest.mark.proves("XAI-01")
@pytest.mark.parametrize("ranks", [1, 2])
def test_integrated_gradients_are_complete_and_find_the_planted_feature(nursery: Nursery, tmp_path: Path, ranks: int) -> None:
    many = {"distributed": {"strategy": "ddp", "processes_per_node": 2}} if ranks == 2 else {}
    wanted = {"method": "integrated_gradients", "samples": 30, "baseline": "mean" if ranks == 2 else "zero"}
    home = workspace(tmp_path / "run", TABLE | many | {"interpretability": wanted})
    table(home)
    assert set(nursery.run(home, ranks)) == {0}, log(home)
    kept, said = attributions(home)
    predictor = load(final_checkpoint(home))
    model = double(predictor)
    x, values, classes = kept["inputs"], kept["attributions/predicted"], kept["targets/predicted"]
    assert x.shape == values.shape == (30, 4)
    torch.testing.assert_close(kept["outputs"], model(x))
    assert torch.equal(classes, model(x).argmax(1))
    rise = (model(x) - model(kept["baseline"])).gather(1, classes[:, None]).squeeze(1)
    torch.testing.assert_close(values.sum(1), rise, rtol=0, atol=6e-8)
    assert said["targets"]["predicted"]["completeness_error"] < 6e-8
    ours = captum.IntegratedGradients(model).attribute(x, kept["baseline"].expand_as(x), target=classes, n_steps=64)
    torch.testing.assert_close(values, ours.detach())
    ranking = said["targets"]["predicted"]["ranking"]
    assert [entry["feature"] for entry in ranking][:2] == ["signal", "weak"]
    assert ranking[0]["importance"] == pytest.approx(values.abs().mean(0).max().item())
    assert (kept["baseline"].abs().max() > 1e-9) == (ranks == 2), "the mean of normalized training rows, not of all rows"


@pytest.mark.proves("XAI-01")
def test_permutation_importance_is_that_of_scikit_learn(nursery: Nursery, tmp_path: Path) -> None:
    wanted = {"method": {"type": "permutation_importance", "repeats": 40}, "split": "validation", "samples": 80}
    home = workspace(tmp_path / "run", TABLE | {"interpretability": wanted})
    table(home)
    assert nursery.run(home) == [0], log(home)
    kept, said = attributions(home)
    model, ranking = double(load(final_checkpoint(home))), said["targets"]["loss"]["ranking"]
    # Any labels will do for the reference, as long as both have the same: those of the rows in the order of the split.
    x, labels = kept["inputs"], labels_of(home, kept["inputs"])

    class Fitted:
        def fit(self, x: object, y: object) -> None: ...

        def score(self, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> float:
            return -F.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y)).item()

    theirs = inspection.permutation_importance(Fitted(), x.numpy(), labels, n_repeats=40, random_state=0)
    ours = {entry["feature"]: entry["importance"] for entry in ranking}
    assert ranking[0]["feature"] == "signal" == COLUMNS[int(theirs.importances_mean.argmax())]
    for column, mean, spread in zip(COLUMNS, theirs.importances_mean, theirs.importances_std, strict=True):
        assert ours[column] == pytest.approx(mean, abs=5 * spread / np.sqrt(40) + 1e-3), column


def labels_of(home: Path, inputs: torch.Tensor) -> np.ndarray[Any, Any]:
    """Found again by their normalized values."""
    rows = np.loadtxt(home / "data" / "set@1" / "rows.csv", delimiter=",", skiprows=1)
    scaling = load(final_checkpoint(home)).about.scaling
    assert scaling is not None
    known = scaling.apply(torch.from_numpy(rows[:, :4].astype(np.float32))).double()
    labels: np.ndarray[Any, Any] = rows[torch.cdist(inputs, known).argmin(1).numpy(), 4].astype(np.int64)
    return labels


@pytest.mark.proves("XAI-01")
def test_text_is_traced_back_to_its_tokens(nursery: Nursery, tmp_path: Path) -> None:
    spec: dict[str, Any] = {
        "task": {"type": "causal_lm"},
        "model": {
            "type": "transformer_decoder",
            "num_layers": 1,
            "hidden_size": 16,
            "num_heads": 2,
            "position": {"type": "rope"},
        },
        "data": {"source": {"type": "text", "dataset": "set@1"}, "tokenizer": {"type": "char"}, "sequence": {"length": 8}},
        "training": {"max_steps": 20, "batch_size": 8},
        "interpretability": {"method": {"type": "integrated_gradients", "steps": 200}, "samples": 6, "targets": "label"},
    }
    home = workspace(tmp_path / "run", spec | {"data": spec["data"] | {"split": {"test": 0.2}}})
    (home / "data" / "set@1" / "text.txt").write_text("the cat sat on the mat. a dog ran to the cat.\n" * 30)
    assert nursery.run(home) == [0], log(home)
    kept, said = attributions(home)
    model = double(load(final_checkpoint(home)))
    ids, values, classes = kept["inputs"], kept["attributions/label"], kept["targets/label"]
    assert values.shape == ids.shape == (6, 8)
    rise = (model(ids)[:, -1] - model(torch.zeros_like(ids))[:, -1]).gather(1, classes[:, None]).squeeze(1)
    torch.testing.assert_close(values.sum(1), rise, rtol=1e-4, atol=1e-4)
    assert said["targets"]["label"]["completeness_error"] == pytest.approx((values.sum(1) - rise).abs().max().item(), abs=1e-9)


@pytest.mark.proves("XAI-01")
def test_grad_cam_shows_where_a_convolution_looks(nursery: Nursery, tmp_path: Path) -> None:
    layers = [
        {"type": "conv", "channels": 3, "kernel_size": 3, "padding": 1},
        {"type": "activation", "kind": "relu"},
        {"type": "flatten"},
        {"type": "linear", "units": 4},
    ]
    spec = TABLE | {
        "task": {"type": "classification"},
        "model": {"type": "layers", "layers": layers},
        "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"test": 0.2}},
        "training": {"epochs": 2, "batch_size": 16},
        "interpretability": {"method": "layer_grad_cam", "targets": [1, 3], "samples": 10},
    }
    data = blobs()
    home = workspace(tmp_path / "run", spec, x=data["x"].reshape(-1, 1, 3, 4), y=data["y"])
    assert nursery.run(home) == [0], log(home)
    kept, said = attributions(home)
    model = double(load(final_checkpoint(home)))
    assert isinstance(model, nn.Sequential)
    assert set(said["targets"]) == {"output_1", "output_3"}
    for target in (1, 3):
        maps = model[0](kept["inputs"])
        gradients = torch.autograd.grad(model[1:](maps)[:, target].sum(), maps)[0]
        expected = F.relu((gradients.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True))
        torch.testing.assert_close(kept[f"attributions/output_{target}"], expected.detach())


def test_what_cannot_be_explained_is_refused_before_the_first_step(nursery: Nursery, tmp_path: Path) -> None:
    normed = TABLE | {"model": TABLE["model"] | {"activation": "gelu"}, "interpretability": {"method": "lrp"}}
    home = workspace(tmp_path / "run", normed)
    table(home)
    assert nursery.run(home) == [2], log(home)
    assert (finished(home).reason, finished(home).step) == ("spec_error", 0)
    assert "lrp has no rule" in finished(home).message
    assert not series(home)
    assert not [event for event in events(home) if event.type == "artifact"]


class Case:
    """A model of which every attribution can be worked out by hand, and samples."""

    def __init__(self, *layers: nn.Module) -> None:
        torch.manual_seed(1)
        self.model = nn.Sequential(*layers).double().eval()
        self.x, self.reference = torch.randn(5, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
        self.baseline, self.target = torch.randn(1, 4, dtype=torch.float64), Target("t", torch.tensor([0, 2, 1, 1, 0]))

    def attribution(self, method: Any) -> torch.Tensor:
        subject = Subject(self.model, self.x, torch.zeros(5), self.reference, self.baseline, lambda o, t: o.sum(), 2)
        (found,) = explain(asked.Interpretability(method=method), subject, [self.target])
        return found.values

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """The explained output of each sample."""
        out: torch.Tensor = self.model(x).gather(1, self.target.indices[:, None]).squeeze(1)
        return out


def linear() -> Case:
    return Case(nn.Linear(4, 3))


def without(case: Case, at: list[int]) -> torch.Tensor:
    changed = case.x.clone()
    changed[:, at] = case.baseline[:, at]
    return case.of(changed)


def test_saliency_is_the_size_of_the_gradient() -> None:
    case = Case(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    x = case.x.clone().requires_grad_()
    torch.testing.assert_close(case.attribution(asked.Saliency()), torch.autograd.grad(case.of(x).sum(), x)[0].abs())


def test_ablation_and_occlusion_are_differences() -> None:
    case = Case(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    drops = torch.stack([case.of(case.x) - without(case, [i]) for i in range(4)], 1)
    torch.testing.assert_close(case.attribution(asked.FeatureAblation()), drops)
    torch.testing.assert_close(case.attribution(asked.Occlusion(window=1)), drops.float(), rtol=1e-5, atol=1e-6)
    halves = [case.of(case.x) - without(case, at) for at in ([0, 1], [2, 3])]
    expected = torch.stack([halves[0], halves[0], halves[1], halves[1]], 1)
    torch.testing.assert_close(case.attribution(asked.Occlusion(window=2, stride=2)), expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.proves("XAI-01")
def test_on_a_linear_model_all_agree_with_weight_times_difference() -> None:
    case = linear()
    (layer,) = case.model
    assert isinstance(layer, nn.Linear)
    weights = layer.weight[case.target.indices]
    torch.testing.assert_close(case.attribution(asked.DeepLift()), (weights * (case.x - case.baseline)).detach())
    torch.testing.assert_close(
        case.attribution(asked.IntegratedGradients(steps=3)), (weights * (case.x - case.baseline)).detach()
    )
    shap = case.attribution(asked.GradientShap(draws=1000))
    torch.testing.assert_close(shap, (weights * (case.x - case.reference.mean(0))).detach(), rtol=0.2, atol=0.1)
    relevance = case.attribution(asked.LayerwiseRelevance())
    bias = layer.bias[case.target.indices]
    torch.testing.assert_close(relevance.sum(1), (case.of(case.x) - bias).detach(), rtol=1e-3, atol=1e-3)


def test_deep_lift_adds_up() -> None:
    case = Case(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    torch.testing.assert_close(
        case.attribution(asked.DeepLift()).sum(1), (case.of(case.x) - case.of(case.baseline.expand(5, 4))).detach()
    )


def _types() -> Iterator[str]:
    for member in get_args(get_args(asked.AnyMethod)[0]):
        yield member.model_fields["type"].default


def test_names_that_stand_alone_are_those_of_the_methods() -> None:
    assert set(get_args(asked.MethodName)) == set(_types())


def test_sampled_attributions_are_the_same_for_one_spec(nursery: Nursery, tmp_path: Path) -> None:
    """captum draws the samples of GradientShap from NumPy's global generator, which torch's seed does not move."""
    how = {"method": {"type": "gradient_shap", "draws": 4}, "samples": 3}
    found = []
    for seed, name in enumerate(("one", "other")):
        home = workspace(tmp_path / name, {**TABLE, "training": {"max_steps": 2, "batch_size": 16}, "interpretability": how})
        table(home)
        assert nursery.run(home, inject=f"import numpy; numpy.random.seed({seed})") == [0], log(home)
        found.append(attributions(home)[0])
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])
