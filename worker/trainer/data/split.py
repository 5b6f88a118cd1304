"""Split specs into rows."""

from dataclasses import dataclass
from typing import assert_never

import torch

from stoker.spec.data.split import Split
from stoker.spec.derived.arithmetic import apportion, split_sizes
from worker.trainer.errors import DataProblem, SpecProblem


@dataclass(frozen=True)
class Parts:
    """Rows of each part, in file order: int64."""

    train: torch.Tensor
    validation: torch.Tensor
    test: torch.Tensor

    @property
    def each(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.train, self.validation, self.test


def split_rows(spec: Split, total: int, classes: torch.Tensor | None, seed: int) -> Parts:
    """Which rows train, steer and judge. `classes` (total,) int64 for classification.

    Raises DataProblem when nothing is left to train on.
    """
    sizes = split_sizes(total, spec)
    if sizes.train < 1:
        raise DataProblem(f"data.split: of {total} samples none is left for training; lower validation and test")
    generator = torch.Generator().manual_seed(seed)
    match spec.strategy or ("random" if classes is None else "stratified"):
        case "contiguous":
            rows = torch.arange(total)
            return Parts(
                rows[: sizes.train], rows[sizes.train : sizes.train + sizes.validation], rows[sizes.train + sizes.validation :]
            )
        case "random":
            return _parts(torch.randperm(total, generator=generator), sizes.validation, sizes.test)
        case "stratified":
            if classes is None:
                raise SpecProblem("data.split.strategy: stratified needs classes; use random")
            return _stratified(classes, sizes.validation, sizes.test, generator)
        case strategy:
            assert_never(strategy)


def _stratified(classes: torch.Tensor, validation: int, test: int, generator: torch.Generator) -> Parts:
    """Each class gives its share of each part, by largest remainder."""
    order = torch.randperm(len(classes), generator=generator)
    groups = [order[classes[order] == c] for c in torch.unique(classes)]
    for_test = apportion(test, [len(g) for g in groups])
    for_validation = apportion(validation, [len(g) - t for g, t in zip(groups, for_test, strict=True)])
    parts = [_parts(g, v, t) for g, v, t in zip(groups, for_validation, for_test, strict=True)]
    return Parts(*(torch.cat([getattr(p, name) for p in parts]).sort().values for name in ("train", "validation", "test")))


def _parts(order: torch.Tensor, validation: int, test: int) -> Parts:
    train = len(order) - validation - test
    return Parts(*(part.sort().values for part in torch.split(order, [train, validation, test])))
