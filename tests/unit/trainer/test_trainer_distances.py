"""What generated samples are made of, and how far they are from real ones, against scikit-learn and SciPy."""

import numpy as np
import pytest
import torch

from tests.support.late import Late
from worker.trainer.data import TensorSamples, noise
from worker.trainer.data.noise import WithNoise
from worker.trainer.evaluation.distances import KernelDistance, NormalDistance

linalg = Late("scipy.linalg")
stats = Late("scipy.stats")
pairwise = Late("sklearn.metrics.pairwise")

DRAW = np.random.default_rng(0)
REAL, MADE = DRAW.normal(size=(60, 4)) + 1, DRAW.normal(size=(60, 4)) @ DRAW.normal(size=(4, 4))


def in_parts(metric: KernelDistance | NormalDistance) -> float:
    for at in range(0, 60, 25):
        metric.update(torch.from_numpy(MADE[at : at + 25]), torch.from_numpy(REAL[at : at + 25]))
    return float(metric.compute())


@pytest.mark.parametrize(("bandwidth", "limit"), [(None, 1000), (0.7, 1000), (1.3, 40)])
def test_the_kernel_distance_is_that_of_scikit_learn(bandwidth: float | None, limit: int) -> None:
    real, made = REAL[:limit], MADE[:limit]
    apart = pairwise.euclidean_distances(real)[np.triu_indices(len(real), 1)]
    width = bandwidth or np.sort(apart)[(len(apart) - 1) // 2]
    same, other, between = (pairwise.rbf_kernel(a, b, 1 / (2 * width**2)) for a, b in ((real, real), (made, made), (made, real)))
    count = len(real)
    wanted = (same.sum() - count + other.sum() - count) / (count * (count - 1)) - 2 * between.mean()
    assert in_parts(KernelDistance(bandwidth, limit)) == pytest.approx(wanted, rel=1e-9)


def test_the_distance_of_normals_is_that_of_scipy() -> None:
    one, other = np.cov(MADE.T), np.cov(REAL.T)
    wanted = ((MADE.mean(0) - REAL.mean(0)) ** 2).sum() + np.trace(one + other - 2 * np.real(linalg.sqrtm(one @ other)))
    assert in_parts(NormalDistance(4)) == pytest.approx(wanted, rel=1e-9)


def test_a_single_sample_has_no_distance() -> None:
    for metric in (KernelDistance(None, 10), NormalDistance(2)):
        metric.update(torch.ones(1, 2), torch.ones(1, 2))
        assert np.isnan(float(metric.compute()))


def test_noise_is_that_of_its_row_whoever_asks() -> None:
    inputs = torch.randn(50, 3)
    samples = WithNoise(TensorSamples(inputs, torch.empty(50, 0)), 4, "normal", 9)
    whole, real = samples.drawn(torch.arange(50), 2)
    some, _ = samples.drawn(torch.tensor([7, 41]), 2)
    assert whole.shape == (50, 2 * 4 + 1)
    assert torch.equal(some, whole[[7, 41]])
    assert torch.equal(real, inputs)
    assert not torch.equal(samples.drawn(torch.arange(50), 3)[0], whole)
    judged = samples.slice(10, 20, torch.device("cpu"))[0]
    assert torch.equal(judged[3:], samples.slice(13, 20, torch.device("cpu"))[0])


def test_noise_is_distributed_as_it_says() -> None:
    normal, uniform = (noise("stream", np.arange(5000), 6, kind).double().numpy() for kind in ("normal", "uniform"))
    assert stats.kstest(normal.ravel(), "norm").pvalue > 0.01
    assert stats.kstest(uniform.ravel(), "uniform", args=(-1, 2)).pvalue > 0.01
    for values in (normal, uniform):
        assert np.abs(np.corrcoef(values.T) - np.eye(6)).max() < 0.05
        assert abs(np.corrcoef(values[:-1, 0], values[1:, 0])[0, 1]) < 0.05
    nothing = TensorSamples(torch.zeros(5000, 1), torch.empty(5000, 0))
    between = WithNoise(nothing, 1, "normal", 3).drawn(torch.arange(5000), 0)[0][:, -1]
    assert stats.kstest(between.double().numpy(), "uniform").pvalue > 0.01
