"""Every loss against numpy, scipy, scikit-learn or torch's own, and against what its parameters promise."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stoker.spec.loss import (
    BinaryCrossEntropy,
    CrossEntropy,
    Focal,
    GaussianNLL,
    Huber,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    NegativeLogLikelihood,
)
from tests.support.late import Late
from worker.trainer.errors import SpecProblem
from worker.trainer.loss import build_loss, build_weighted_loss, in_chunks, reading_of
from worker.trainer.runtime.objective import Objective

special = Late("scipy.special")
stats = Late("scipy.stats")
metrics = Late("sklearn.metrics")
class_weight = Late("sklearn.utils.class_weight")

N, CLASSES = 40, 5


def mean_of(spec: Loss, outputs: torch.Tensor, targets: torch.Tensor, count: int = CLASSES) -> torch.Tensor:
    loss = build_loss(spec, count, targets)
    out: torch.Tensor = loss(outputs, targets) / loss.sample_weights(targets).sum()
    return out


def gradient(spec: Loss, outputs: torch.Tensor, targets: torch.Tensor, count: int = CLASSES) -> torch.Tensor:
    place = outputs.detach().requires_grad_()
    (found,) = torch.autograd.grad(mean_of(spec, place, targets, count), place)
    return found


def logits(rows: int = N, width: int = CLASSES) -> torch.Tensor:
    return torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 2


def classes(rows: int = N) -> torch.Tensor:
    return torch.arange(rows) * 7 % CLASSES * (torch.arange(rows) % 3 > 0)


def numbers() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(4)
    return torch.randn(N, 3, dtype=torch.float64, generator=draw), torch.randn(N, 3, dtype=torch.float64, generator=draw)


@pytest.mark.proves("LOSS-01")
def test_mse_is_numpys_mean_and_its_gradient() -> None:
    said, truth = numbers()
    assert mean_of(MeanSquaredError(), said, truth).item() == pytest.approx(np.mean((truth.numpy() - said.numpy()) ** 2), 1e-12)
    expected = 2 * (said.numpy() - truth.numpy()) / said.numel()
    np.testing.assert_allclose(gradient(MeanSquaredError(), said, truth), expected, atol=1e-15)


@pytest.mark.proves("LOSS-02")
def test_mae_pulls_with_the_sign_alone() -> None:
    said, truth = numbers()
    assert mean_of(MeanAbsoluteError(), said, truth).item() == pytest.approx(np.abs(truth.numpy() - said.numpy()).mean(), 1e-6)
    expected = np.sign(said.numpy() - truth.numpy()) / said.numel()
    np.testing.assert_allclose(gradient(MeanAbsoluteError(), said, truth), expected, atol=1e-8)


@pytest.mark.proves("LOSS-02")
@pytest.mark.parametrize(("spec", "fitted"), [(MeanAbsoluteError(), "median"), (MeanSquaredError(), "mean")], ids=["mae", "mse"])
def test_one_outlier_moves_the_mean_and_not_the_median(spec: Loss, fitted: str) -> None:
    """A single number is fitted to values of which one is far away: least squares find the mean, least distances the median."""
    truth = torch.tensor([[1.0], [1.1], [0.9], [1.05], [1000.0]])
    guess = torch.zeros(1, requires_grad=True)
    for step in range(3000):
        (slope,) = torch.autograd.grad(mean_of(spec, guess.expand(5, 1), truth, 1), guess)
        guess = (guess - (0.4 if fitted == "mean" else 1.0 / (10 + step)) * slope).detach().requires_grad_()
    assert guess.item() == pytest.approx(getattr(np, fitted)(truth.numpy()), rel=0.02)


@pytest.mark.proves("LOSS-01")
@pytest.mark.parametrize("delta", [0.3, 1.0, 5.0])
def test_huber_is_a_square_that_becomes_a_line(delta: float) -> None:
    said, truth = numbers()
    apart = np.abs(said.numpy() - truth.numpy())
    expected = np.where(apart <= delta, apart**2 / 2, delta * (apart - delta / 2)).mean()
    assert mean_of(Huber(delta=delta), said, truth).item() == pytest.approx(expected, 1e-6)


@pytest.mark.proves("LOSS-05")
def test_gaussian_nll_is_the_log_density_up_to_its_constant() -> None:
    _, truth = numbers()
    outputs = logits(N, 6)
    spread = np.logaddexp(0, outputs[:, 3:].numpy()) + 1e-3
    expected = -stats.norm.logpdf(truth.numpy(), outputs[:, :3].numpy(), np.sqrt(spread)).mean() - np.log(2 * np.pi) / 2
    assert mean_of(GaussianNLL(min_variance=1e-3), outputs, truth, 3).item() == pytest.approx(expected, 1e-5)


def test_of_means_and_variances_metrics_see_the_means() -> None:
    _, truth = numbers()
    outputs = logits(N, 6).float()
    reading = reading_of(build_loss(GaussianNLL(), 3, truth))
    assert torch.equal(reading.predicted(outputs), outputs[:, :3])


@pytest.mark.proves("LOSS-03")
def test_cross_entropy_is_minus_the_log_softmax() -> None:
    expected = -special.log_softmax(logits().numpy(), axis=1)[np.arange(N), classes().numpy()].mean()
    assert mean_of(CrossEntropy(), logits(), classes()).item() == pytest.approx(expected, 1e-12)


@pytest.mark.proves("LOSS-04")
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_gradient_of_a_tempered_softmax(temperature: float) -> None:
    wanted = np.eye(CLASSES)[classes().numpy()]
    expected = (special.softmax(logits().numpy() / temperature, axis=1) - wanted) / temperature / N
    found = gradient(CrossEntropy(temperature=temperature), logits(), classes())
    np.testing.assert_allclose(found, expected, atol=1e-16)
    if temperature == 1.0:
        assert torch.equal(found, gradient(CrossEntropy(), logits(), classes()))


@pytest.mark.proves("LOSS-03")
def test_z_loss_is_the_squared_log_of_the_denominator() -> None:
    denominators = np.log(np.exp(logits().numpy() / 2).sum(1))
    plain = mean_of(CrossEntropy(temperature=2.0), logits(), classes()).item()
    found = mean_of(CrossEntropy(temperature=2.0, z_loss=0.01), logits(), classes()).item()
    assert found - plain == pytest.approx(0.01 * (denominators**2).mean(), rel=1e-5)


@pytest.mark.proves("LOSS-05")
def test_nll_of_log_softmax_is_cross_entropy() -> None:
    ours = mean_of(NegativeLogLikelihood(), logits(), classes())
    assert ours.item() == pytest.approx(F.nll_loss(F.log_softmax(logits(), -1), classes()).item(), rel=1e-6)
    assert ours.item() == pytest.approx(metrics.log_loss(classes().numpy(), special.softmax(logits().numpy(), axis=1)), rel=1e-6)


@pytest.mark.proves("LOSS-05")
def test_bce_on_logits_is_minus_the_log_probability() -> None:
    outputs, truth = logits(N, 3), (logits(N, 3).flip(0) > 0).double()
    chances = special.expit(outputs.numpy())
    expected = -np.where(truth.numpy() > 0, np.log(chances), np.log1p(-chances)).mean()
    assert mean_of(BinaryCrossEntropy(), outputs, truth, 3).item() == pytest.approx(expected, rel=1e-6)
    factors = (2.0, 0.5, 3.0)
    weighted = -np.where(truth.numpy() > 0, np.asarray(factors) * np.log(chances), np.log1p(-chances)).mean()
    assert mean_of(BinaryCrossEntropy(pos_weight=factors), outputs, truth, 3).item() == pytest.approx(weighted, rel=1e-6)


@pytest.mark.proves("LOSS-06")
def test_focal_without_focus_is_cross_entropy() -> None:
    """The mean over samples, not over samples and classes: the loss by SciPy, and the gradient that of cross_entropy to the bit."""
    plain = Focal(gamma=0.0, alpha=1.0)
    expected = -special.log_softmax(logits().numpy(), axis=1)[np.arange(N), classes().numpy()].mean()
    assert mean_of(plain, logits(), classes()).item() == pytest.approx(expected, rel=2e-7)
    single = logits().float()
    assert torch.equal(gradient(plain, single, classes()), gradient(CrossEntropy(), single, classes()))
    slope = (special.softmax(logits().numpy(), axis=1) - np.eye(CLASSES)[classes().numpy()]) / N
    np.testing.assert_allclose(gradient(plain, logits(), classes()).numpy(), slope, rtol=0, atol=1e-8)


@pytest.mark.proves("LOSS-06")
def test_focal_of_labels_without_focus_is_bce() -> None:
    outputs, truth = logits(N, 3), (logits(N, 3).flip(0) > 0).double()
    plain = Focal(gamma=0.0)
    expected = -np.where(
        truth.numpy() > 0, np.log(special.expit(outputs.numpy())), np.log(special.expit(-outputs.numpy()))
    ).mean()
    assert mean_of(plain, outputs, truth, 3).item() == pytest.approx(expected, rel=2e-7)
    assert torch.equal(gradient(plain, outputs, truth, 3), gradient(BinaryCrossEntropy(), outputs, truth, 3))


@pytest.mark.proves("LOSS-06", "LOSS-08")
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_of_classes_by_its_formula(gamma: float) -> None:
    alpha = (1.0, 0.25, 2.0, 0.5, 3.0)
    chance = special.softmax(logits().numpy(), axis=1)[np.arange(N), classes().numpy()]
    expected = (np.asarray(alpha)[classes().numpy()] * (1 - chance) ** gamma * -np.log(chance)).mean()
    assert mean_of(Focal(alpha=alpha, gamma=gamma), logits(), classes()).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.proves("LOSS-06", "LOSS-07")
@pytest.mark.parametrize("alpha", [None, 0.25, (0.1, 0.5, 0.9)], ids=str)
def test_focal_of_labels_by_its_formula(alpha: Any) -> None:
    """As published for detection: alpha for what is there, 1 - alpha for what is not (Lin et al. 2017, equation 5)."""
    outputs, truth = logits(N, 3), (logits(N, 3).flip(0) > 0).double()
    right = np.where(truth.numpy() > 0, special.expit(outputs.numpy()), special.expit(-outputs.numpy()))
    share = 1.0 if alpha is None else np.where(truth.numpy() > 0, alpha, 1 - np.asarray(alpha))
    expected = (share * (1 - right) ** 2 * -np.log(right)).mean()
    assert mean_of(Focal(alpha=alpha, gamma=2.0), outputs, truth, 3).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.proves("LOSS-07")
def test_twice_the_alpha_of_a_class_is_twice_its_gradient() -> None:
    once, twice = Focal(alpha=(1.0,) * CLASSES), Focal(alpha=(1.0, 1.0, 2.0, 1.0, 1.0))
    before, after = (gradient(spec, logits(), classes()) for spec in (once, twice))
    of_class = classes() == 2
    assert of_class.any()
    torch.testing.assert_close(after[of_class], 2 * before[of_class])
    torch.testing.assert_close(after[~of_class], before[~of_class])


@pytest.mark.proves("LOSS-08")
def test_what_is_easy_pulls_ever_less_with_gamma() -> None:
    outputs, truth = torch.tensor([[4.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 0])
    ratios = []
    for gamma in (0.0, 1.0, 2.0):
        easy, hard = gradient(Focal(gamma=gamma), outputs, truth, 2).abs().sum(1).tolist()
        ratios.append(easy / hard)
    assert ratios[0] > 10 * ratios[1] > 100 * ratios[2] > 0


def test_a_certain_sample_gives_no_nan() -> None:
    """(1 - p)^gamma has an infinite slope at p = 1 for gamma below 1."""
    outputs, truth = torch.tensor([[200.0, -200.0], [-200.0, 200.0]]), torch.tensor([0, 0])
    for gamma in (0.3, 1.0, 2.0):
        assert gradient(Focal(gamma=gamma), outputs, truth, 2).isfinite().all()


@pytest.mark.proves("LOSS-09")
@pytest.mark.parametrize("make", [CrossEntropy, NegativeLogLikelihood], ids=["cross_entropy", "nll"])
def test_class_weights_weigh_the_mean(make: Any) -> None:
    weights = (0.5, 2.0, 1.0, 0.0, 3.0)
    each = -special.log_softmax(logits().numpy(), axis=1)[np.arange(N), classes().numpy()]
    share = np.asarray(weights)[classes().numpy()]
    found = mean_of(make(class_weights=weights), logits().float(), classes()).item()
    assert found == pytest.approx((share * each).sum() / share.sum(), rel=1e-6)


@pytest.mark.proves("LOSS-09")
@pytest.mark.parametrize("make", [CrossEntropy, NegativeLogLikelihood], ids=["cross_entropy", "nll"])
def test_balanced_weights_are_scikit_learns(make: Any) -> None:
    present = torch.tensor([0] * 17 + [1] * 9 + [2] * 7 + [3] * 4 + [4] * 3)
    expected = class_weight.compute_class_weight("balanced", classes=np.arange(CLASSES), y=present.numpy())
    found = build_loss(make(class_weights="balanced"), CLASSES, present)
    np.testing.assert_allclose(found.weights.numpy(), expected, rtol=1e-6)


CASES: list[tuple[Loss, str]] = [
    (CrossEntropy(), "classes"),
    (CrossEntropy(label_smoothing=0.2, temperature=2.0, class_weights=(1.0, 2.0, 3.0, 4.0, 5.0), z_loss=0.1), "classes"),
    (NegativeLogLikelihood(class_weights="balanced"), "classes"),
    (Focal(alpha=(1.0, 2.0, 3.0, 4.0, 5.0)), "classes"),
    (BinaryCrossEntropy(pos_weight=3.0), "labels"),
    (Focal(alpha=0.3), "labels"),
    (MeanSquaredError(), "numbers"),
    (MeanAbsoluteError(), "numbers"),
    (Huber(delta=0.5), "numbers"),
    (GaussianNLL(), "numbers"),
]


def _targets(kind: str) -> torch.Tensor:
    """(N, k) as floats, as they travel with weights."""
    truth = numbers()[1].float()
    return {"classes": classes().float()[:, None], "numbers": truth, "labels": (truth > 0).float()}[kind]


def _sample_mean(spec: Loss, kind: str, outputs: torch.Tensor, weights: torch.Tensor, *, rows: torch.Tensor) -> torch.Tensor:
    """Gradient of the mean over some rows, with respect to a linear model's matrix."""
    matrix = torch.full((4, outputs.shape[1]), 0.1, requires_grad=True)
    inputs = torch.randn(N, 4, generator=torch.Generator().manual_seed(5))
    everything = torch.cat((_targets(kind), weights[:, None]), 1)
    loss = build_weighted_loss(spec, CLASSES if kind == "classes" else 3, everything, classes=kind == "classes")
    packed = everything[rows]
    mean = loss((outputs + inputs @ matrix)[rows], packed) / loss.sample_weights(packed).sum()
    (found,) = torch.autograd.grad(mean, matrix)
    return found


@pytest.mark.proves("LOSS-10")
@pytest.mark.parametrize(("spec", "kind"), CASES, ids=str)
def test_weight_two_is_the_row_twice_and_weight_zero_is_no_row(spec: Loss, kind: str) -> None:
    width = CLASSES if kind == "classes" else 6 if isinstance(spec, GaussianNLL) else 3
    outputs, alike = logits(N, width).float(), torch.ones(N)
    twice, never = alike.clone(), alike.clone()
    twice[7], never[7] = 2.0, 0.0
    everybody = torch.arange(N)
    found = _sample_mean(spec, kind, outputs, twice, rows=everybody)
    expected = _sample_mean(spec, kind, outputs, alike, rows=torch.cat((everybody, torch.tensor([7]))))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    found = _sample_mean(spec, kind, outputs, never, rows=everybody)
    expected = _sample_mean(spec, kind, outputs, alike, rows=everybody[everybody != 7])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("spec", "kind"), CASES, ids=str)
def test_samples_of_equal_weight_are_the_plain_mean(spec: Loss, kind: str) -> None:
    width = CLASSES if kind == "classes" else 6 if isinstance(spec, GaussianNLL) else 3
    outputs, count = logits(N, width).float(), CLASSES if kind == "classes" else 3
    packed = torch.cat((_targets(kind), torch.full((N, 1), 0.7)), 1)
    plain = classes() if kind == "classes" else _targets(kind)
    loss = build_weighted_loss(spec, count, packed, classes=kind == "classes")
    found = loss(outputs, packed) / loss.sample_weights(packed).sum()
    assert found.item() == pytest.approx(mean_of(spec, outputs, plain, count).item(), rel=1e-5)


@pytest.mark.proves("LOSS-10")
def test_a_sum_over_samples_or_over_their_weights() -> None:
    weights, truth = torch.rand(N, generator=torch.Generator().manual_seed(6)), numbers()[1].float()
    said, packed = numbers()[0].float(), torch.cat((truth, weights[:, None]), 1)
    each = ((said - truth) ** 2).numpy()
    for how, expected in (("weights", 3 * weights.sum().item()), ("samples", each.size)):
        spec = MeanSquaredError(sample_weight_normalization=how)  # type: ignore[arg-type]  # a str of two
        loss = build_weighted_loss(spec, 3, packed, classes=False)
        found = loss(said, packed) / loss.sample_weights(packed).sum()
        assert found.item() == pytest.approx((weights.numpy()[:, None] * each).sum() / expected, rel=1e-5)


class Small(nn.Module):
    """As transformers are: hidden states, and a head that may be the embedding."""

    def __init__(self, *, tied: bool, cap: float | None = None) -> None:
        super().__init__()
        self.tokens, self.inner = nn.Embedding(50, 8), nn.Linear(8, 8)
        self.head = None if tied else nn.Linear(8, 50, bias=False)
        self.final_softcap = cap

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.inner(self.tokens(ids)))

    def projection(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return (self.tokens.weight if self.head is None else self.head.weight), None

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        said = F.linear(self.hidden(ids), self.projection()[0])
        return said if self.final_softcap is None else self.final_softcap * torch.tanh(said / self.final_softcap)


def _learned(
    model: nn.Module, spec: Loss, ids: torch.Tensor, truth: torch.Tensor, *, mixed: bool
) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    objective = in_chunks(spec, Objective(model, build_loss(spec, 50, truth)))
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        loss = objective(ids, truth)
    loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.proves("LOSS-03")
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("chunk", [1, 7, 18, 1000])
@pytest.mark.parametrize("more", [{}, {"temperature": 2.0, "label_smoothing": 0.1, "z_loss": 0.01}], ids=["plain", "all"])
def test_logits_in_parts_are_the_same_loss(tied: bool, chunk: int, more: dict[str, float]) -> None:
    torch.manual_seed(0)
    model, ids, truth = Small(tied=tied, cap=5.0 if more else None), torch.randint(0, 50, (2, 9)), torch.randint(0, 50, (2, 9))
    loss, wanted = _learned(model, CrossEntropy(**more), ids, truth, mixed=False)
    found, gradients = _learned(model, CrossEntropy(**more, chunk_tokens=chunk), ids, truth, mixed=False)
    assert found == pytest.approx(loss, rel=1e-6)
    for ours, expected in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)
    assert model(ids).shape == (2, 9, 50)


def test_logits_in_parts_under_autocast() -> None:
    torch.manual_seed(0)
    model, ids, truth = Small(tied=True), torch.randint(0, 50, (4, 9)), torch.randint(0, 50, (4, 9))
    loss, wanted = _learned(model, CrossEntropy(), ids, truth, mixed=True)
    found, gradients = _learned(model, CrossEntropy(chunk_tokens=5), ids, truth, mixed=True)
    assert found == pytest.approx(loss, rel=1e-5)
    for ours, expected in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(ours, expected, atol=2e-2, rtol=2e-2)


@pytest.mark.proves("LOSS-03")
@pytest.mark.skipif(not hasattr(nn, "LinearCrossEntropyLoss"), reason="torch 2.13 and later")
def test_logits_in_parts_are_torchs_fused_loss() -> None:
    torch.manual_seed(0)
    model, ids, truth = Small(tied=False), torch.randint(0, 50, (3, 7)), torch.randint(0, 50, (3, 7))
    ours, _ = _learned(model, CrossEntropy(label_smoothing=0.1, chunk_tokens=4), ids, truth, mixed=False)
    fused = nn.LinearCrossEntropyLoss(8, 50, bias=False, reduction="sum", label_smoothing=0.1)
    assert model.head is not None
    fused.linear.weight = model.head.weight
    assert ours == pytest.approx(fused(model.hidden(ids).flatten(0, 1), truth.flatten()).item(), rel=1e-6)


def test_a_model_without_a_head_of_its_own_is_refused() -> None:
    objective = Objective(nn.Linear(3, 4), build_loss(CrossEntropy(), 4, torch.zeros(2, dtype=torch.int64)))
    with pytest.raises(SpecProblem, match="chunk_tokens"):
        in_chunks(CrossEntropy(chunk_tokens=8), objective)


@pytest.mark.parametrize(
    ("spec", "targets", "said"),
    [
        (NegativeLogLikelihood(), torch.randn(4, 3), "nll needs classes"),
        (Huber(), torch.zeros(4, dtype=torch.int64), "huber needs numbers"),
        (BinaryCrossEntropy(), torch.zeros(4, dtype=torch.int64), "bce needs labels"),
        (BinaryCrossEntropy(pos_weight=(1.0, 2.0)), torch.zeros(4, 3), "2 factors for 3 labels"),
        (Focal(alpha=(1.0, 2.0)), torch.zeros(4, dtype=torch.int64), "2 factors for 3 outputs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_loss_that_does_not_fit_its_targets_is_refused(spec: Loss, targets: torch.Tensor, said: str) -> None:
    with pytest.raises(SpecProblem, match=said):
        build_loss(spec, 3, targets)
