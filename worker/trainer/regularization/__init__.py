"""Regularization spec into what is added to gradients before they are bounded, and what is taken off weights after the step.

Each rank acts on the part of each weight that it holds. Gradients are those of the whole batch by then, so that every part gets
its penalty once, however many ranks there are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from stoker.spec.regularization import Penalty, Regularization
from worker.trainer.errors import SpecProblem
from worker.trainer.regularization.spectral_norm import Bounded, bounds_of
from worker.trainer.runtime.part import Part
from worker.trainer.runtime.shards import local, placed, total_norm, whole

Named = Sequence[tuple[str, nn.Parameter]]
Rates = Mapping[nn.Parameter, float]


@dataclass(frozen=True)
class Pieces:
    """Where other weights of the model are, so that a penalty may fall on none of those that are here."""

    group: dist.ProcessGroup | None = None
    """Ranks that hold them."""
    device: torch.device | None = None
    """Of the weights that are here."""


ALL_HERE = Pieces()
OF_MATRICES = ("group_lasso", "orthogonal")
"""Penalties that vectors do not have."""


class Term(Protocol):
    """One penalty on some weights."""

    def value(self) -> torch.Tensor:
        """Strength x penalty of the weights as they are, over all ranks; every rank asks."""

    def pull(self) -> None:
        """Add its gradient to those that are there."""

    def shrink(self, rates: Rates) -> None:
        """After a step that moved the weights. `rates`: the learning rate of each weight."""


@dataclass
class Absolute:
    """strength x sum of |w|."""

    strength: float
    weights: Sequence[nn.Parameter]
    proximal: bool = False
    pieces: Pieces = ALL_HERE

    def value(self) -> torch.Tensor:
        return self.strength * total_norm([w.detach() for w in self.weights], 1.0, self.pieces.group, self.pieces.device)

    def pull(self) -> None:
        if not self.proximal:
            for weight, gradient in _with_gradients(self.weights):
                local(gradient).add_(local(weight.detach()).sign(), alpha=self.strength)

    def shrink(self, rates: Rates) -> None:
        """What is left of each weight once its amount is smaller by rate x strength; nothing where it was smaller than that."""
        if self.proximal:
            for weight, _ in _with_gradients(self.weights):
                part = local(weight.detach())
                torch.nn.functional.softshrink(part, rates[weight] * self.strength, out=part)  # type: ignore[call-arg]  # an overload


@dataclass
class Squared:
    """strength x sum of w squared."""

    strength: float
    weights: Sequence[nn.Parameter]
    pieces: Pieces = ALL_HERE

    def value(self) -> torch.Tensor:
        norm = total_norm([w.detach() for w in self.weights], 2.0, self.pieces.group, self.pieces.device)
        return self.strength * norm.square()

    def pull(self) -> None:
        pairs = list(_with_gradients(self.weights))
        if pairs:
            gradients, weights = [local(g) for _, g in pairs], [local(w.detach()) for w, _ in pairs]
            torch._foreach_add_(gradients, weights, alpha=2 * self.strength)

    def shrink(self, rates: Rates) -> None:
        return


@dataclass
class Grouped:
    """strength x sum over rows, or columns, of root of their size x their norm."""

    strength: float
    weights: Sequence[nn.Parameter]
    axis: Literal[0, 1]
    """Dimension that numbers the groups."""
    proximal: bool = False
    pieces: Pieces = ALL_HERE

    def value(self) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64, device=self.pieces.device)
        for weight in self.weights:
            part = self._norms(weight).double().sum() * self._root(weight)
            for group in _groups_over(weight, lambda dim: dim == self.axis):
                dist.all_reduce(part, group=group)
            total = total + part
        return self.strength * _over(total, self.pieces).float()

    def pull(self) -> None:
        if self.proximal:
            return
        for weight, gradient in _with_gradients(self.weights):
            norms = self._norms(weight)
            factor = torch.where(norms > 0, self.strength * self._root(weight) / norms, 0.0)
            local(gradient).add_(local(weight.detach()) * self._along(factor, weight).to(weight.dtype))

    def shrink(self, rates: Rates) -> None:
        if not self.proximal:
            return
        for weight, _ in _with_gradients(self.weights):
            left = 1 - rates[weight] * self.strength * self._root(weight) / self._norms(weight).clamp(min=1e-30)
            local(weight.detach()).mul_(self._along(left.clamp(min=0), weight).to(weight.dtype))

    def _norms(self, weight: nn.Parameter) -> torch.Tensor:
        """Of this rank's groups, each whole: (groups,)."""
        part = local(weight.detach()).float()
        squares = part.square().sum([d for d in range(part.dim()) if d != self.axis])
        for group in _groups_over(weight, lambda dim: dim != self.axis):
            dist.all_reduce(squares, group=group)
        return squares.sqrt()

    def _root(self, weight: nn.Parameter) -> float:
        """Root of the size of one group."""
        return float((weight.numel() / weight.shape[self.axis]) ** 0.5)

    def _along(self, factors: torch.Tensor, weight: nn.Parameter) -> torch.Tensor:
        """(groups,) in the shape that multiplies the weight."""
        return factors.view([-1 if d == self.axis else 1 for d in range(weight.dim())])


@dataclass
class Unlike:
    """strength x squared distance of W W^T from the identity, W being a matrix with no more rows than columns."""

    strength: float
    weights: Sequence[nn.Parameter]
    pieces: Pieces = ALL_HERE

    def value(self) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64, device=self.pieces.device)
        for weight in self.weights:
            total = total + self._off(_matrix(weight)).double().square().sum()
        return self.strength * _over(total, self.pieces).float()

    def pull(self) -> None:
        for weight, gradient in _with_gradients(self.weights):
            matrix = _matrix(weight)
            made = 4 * self.strength * (self._off(matrix) @ matrix)
            flat = made if weight.shape[0] <= weight.numel() // weight.shape[0] else made.T
            local(gradient).add_(local(placed(flat.reshape(weight.shape).to(weight.dtype), weight)))

    def shrink(self, rates: Rates) -> None:
        return

    @staticmethod
    def _off(matrix: torch.Tensor) -> torch.Tensor:
        return matrix @ matrix.T - torch.eye(len(matrix), device=matrix.device)


@dataclass
class Regularizer:
    """All penalties of a run, by name. Without any it does nothing."""

    terms: Mapping[str, Term] = field(default_factory=dict)
    bounds: Sequence[tuple[Bounded, nn.Parameter]] = ()
    """Estimates of singular values, each with its weight."""

    def pull(self) -> None:
        """Once per step, when the gradients of the mean loss are there."""
        for term in self.terms.values():
            term.pull()

    def shrink(self, optimizer: torch.optim.Optimizer) -> None:
        """Once per step that moved the weights."""
        if self.terms:
            rates = {weight: group["lr"] for group in optimizer.param_groups for weight in group["params"]}
            for term in self.terms.values():
                term.shrink(rates)
        for estimate, weight in self.bounds:
            estimate.closer(weight)

    def part(self) -> Part:
        """What the log reports: each penalty, as it is when the log is written."""
        return Part(gauges={f"train/penalty_{name}": torch.no_grad()(term.value) for name, term in self.terms.items()})


def build_regularizer(
    spec: Regularization, model: nn.Module, weights: Named, group: dist.ProcessGroup | None = None
) -> Regularizer:
    """`weights`: those of the model that learn and are here, by name; `group`: ranks that hold others of it."""
    pieces = Pieces(group, next((local(weight).device for _, weight in weights), None))
    terms: dict[str, Term] = {}
    if spec.l1 is not None:
        terms["l1"] = Absolute(spec.l1.strength, _chosen(spec.l1, weights), spec.l1.proximal, pieces)
    if spec.l2 is not None:
        terms["l2"] = Squared(spec.l2.strength, _chosen(spec.l2, weights), pieces)
    if (net := spec.elastic_net) is not None:
        on = _chosen(net, weights)
        if net.l1_ratio > 0:
            terms["elastic_net_l1"] = Absolute(net.strength * net.l1_ratio, on, net.proximal, pieces)
        if net.l1_ratio < 1:
            terms["elastic_net_l2"] = Squared(net.strength * (1 - net.l1_ratio), on, pieces)
    if (lasso := spec.group_lasso) is not None:
        on = [weight for weight in _chosen(lasso, weights) if weight.dim() > 1]
        terms["group_lasso"] = Grouped(lasso.strength, on, 0 if lasso.groups == "rows" else 1, lasso.proximal, pieces)
    if spec.orthogonal is not None:
        on = [weight for weight in _chosen(spec.orthogonal, weights) if weight.dim() > 1]
        terms["orthogonal"] = Unlike(spec.orthogonal.strength, on, pieces)
    return Regularizer(terms, tuple(bounds_of(model)))


def check_penalties(spec: Regularization, weights: Named) -> None:
    """`weights`: all of the model that learn, on whatever ranks they will be. Raises SpecProblem for a pattern that fits none."""
    for name in ("l1", "l2", "elastic_net", "group_lasso", "orthogonal"):
        penalty: Penalty | None = getattr(spec, name)
        if penalty is None or penalty.pattern is None:
            continue
        least = 2 if name in OF_MATRICES else 0
        if not any(weight.dim() >= least for weight in _chosen(penalty, weights)):
            what = "matrix" if least else "weight"
            raise SpecProblem(
                f"regularization.{name}.pattern: {penalty.pattern!r} matches no {what} that learns; see the model's summary for the names"
            )


def _chosen(spec: Penalty, weights: Named) -> list[nn.Parameter]:
    if spec.pattern is None:
        return [weight for _, weight in weights if weight.dim() > 1]
    return [weight for given, weight in weights if fnmatchcase(given, spec.pattern)]


def _with_gradients(weights: Sequence[nn.Parameter]) -> Iterator[tuple[nn.Parameter, torch.Tensor]]:
    for weight in weights:
        if weight.grad is not None:
            yield weight, weight.grad


def _groups_over(weight: torch.Tensor, wanted: Callable[[int], bool]) -> Iterator[dist.ProcessGroup]:
    """Groups of ranks that hold different parts of a weight along dimensions that are `wanted`."""
    if isinstance(weight, DTensor):
        for index, place in enumerate(weight.placements):
            if place.is_shard() and wanted(getattr(place, "dim", 0)):
                yield weight.device_mesh.get_group(index)


def _matrix(weight: nn.Parameter) -> torch.Tensor:
    """(outputs, rest) or turned, so that there are no more rows than columns; whole, in float32."""
    flat = whole(weight.detach()).flatten(1).float()
    return flat if flat.shape[0] <= flat.shape[1] else flat.T


def _over(total: torch.Tensor, pieces: Pieces) -> torch.Tensor:
    if pieces.group is not None:
        dist.all_reduce(total, group=pieces.group)
    return total
