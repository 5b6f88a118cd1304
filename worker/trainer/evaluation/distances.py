"""How far generated samples are from real ones. Imported only by runs that measure it: torchmetrics takes seconds to load."""

import torch

from worker.trainer.runtime.absent import absent

with absent("matplotlib", "scipy", "transformers"):  # as for all metrics
    from torchmetrics import Metric as TorchMetric


class KernelDistance(TorchMetric):
    """The unbiased estimate of the squared maximum mean discrepancy, with a Gaussian kernel (Gretton et al. 2012, equation 3)."""

    full_state_update = False

    def __init__(self, bandwidth: float | None, limit: int) -> None:
        """`bandwidth`: unset, the median distance of real samples. `limit`: samples of each kind."""
        super().__init__()
        self._bandwidth, self._limit, self._count = bandwidth, limit, 0
        self.drawn: list[torch.Tensor] | torch.Tensor
        self.real: list[torch.Tensor] | torch.Tensor
        self.add_state("drawn", [], dist_reduce_fx="cat")
        self.add_state("real", [], dist_reduce_fx="cat")

    def update(self, drawn: torch.Tensor, real: torch.Tensor) -> None:
        """(n, numbers) each."""
        room = max(0, self._limit - self._count)
        self._count += len(drawn)
        for kept, rows in ((self.drawn, drawn), (self.real, real)):
            assert isinstance(kept, list), "it is joined when it is computed"
            kept.append(rows[:room].double())

    def compute(self) -> torch.Tensor:
        drawn, real = (_joined(rows)[: self._limit] for rows in (self.drawn, self.real))
        if len(real) < 2:
            return torch.tensor(torch.nan)
        among = torch.cdist(real, real, compute_mode="donot_use_mm_for_euclid_dist")
        width = self._bandwidth or _middle(among)
        return _kernel_distance(among, _apart(drawn, drawn), _apart(drawn, real), width)


def _joined(rows: list[torch.Tensor] | torch.Tensor) -> torch.Tensor:
    return torch.cat(rows) if isinstance(rows, list) else rows


def _apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")


def _middle(distances: torch.Tensor) -> float:
    """The median over pairs; 1 where all samples are alike."""
    rows, columns = torch.triu_indices(len(distances), len(distances), 1)
    return distances[rows, columns].median().item() or 1.0


def _kernel_distance(real: torch.Tensor, drawn: torch.Tensor, mixed: torch.Tensor, width: float) -> torch.Tensor:
    """From distances among and between; no sample is compared with itself."""
    same, other, between = (torch.exp(-d.square() / (2 * width**2)) for d in (real, drawn, mixed))
    pairs = len(real) * (len(real) - 1)
    return (same.sum() - len(real)) / pairs + (other.sum() - len(real)) / pairs - 2 * between.mean()


class NormalDistance(TorchMetric):
    """|m - m'|^2 + tr(C + C' - 2 root(C C')) of means and covariances (Dowson and Landau 1982), as in the FID, of the numbers themselves."""

    full_state_update = False

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.count: torch.Tensor
        self.sums: torch.Tensor
        self.squares: torch.Tensor
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(2, numbers, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros(2, numbers, numbers, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, drawn: torch.Tensor, real: torch.Tensor) -> None:
        self.count += len(drawn)
        for kind, rows in enumerate((drawn.double(), real.double())):
            self.sums[kind] += rows.sum(0)
            self.squares[kind] += rows.T @ rows

    def compute(self) -> torch.Tensor:
        if self.count < 2:
            return torch.tensor(torch.nan)
        means = self.sums / self.count
        outer = means.unsqueeze(2) * means.unsqueeze(1)
        one, other = (self.squares - self.count * outer) / (self.count - 1)
        root = _root(one)
        shared = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
        apart: torch.Tensor = (means[0] - means[1]).square().sum() + one.trace() + other.trace() - 2 * shared
        return apart


def _root(matrix: torch.Tensor) -> torch.Tensor:
    """Of a symmetric matrix without negative eigenvalues but for rounding."""
    values, vectors = torch.linalg.eigh(matrix)
    root: torch.Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
