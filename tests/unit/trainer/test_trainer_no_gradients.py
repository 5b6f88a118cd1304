"""Steps in which no weight has a gradient, and penalties that fall on no weight: both are there while weights are frozen."""

import pytest
import torch
from torch import nn

from stoker.spec.regularization import Regularization
from stoker.spec.training import ClipByNorm, ClipByValue, Clipping
from worker.trainer.errors import SpecProblem
from worker.trainer.regularization import build_regularizer, check_penalties
from worker.trainer.training import build_clip


@pytest.mark.parametrize("spec", [None, ClipByNorm(max_norm=1.0), ClipByValue(value=1.0)], ids=["none", "norm", "value"])
def test_clipping_without_gradients_measures_nothing_and_changes_nothing(spec: Clipping | None) -> None:
    waiting = nn.Parameter(torch.ones(3))
    clip = build_clip(spec, [waiting], measured=True)
    clip()
    assert clip.norm().item() == 0
    assert waiting.grad is None


def test_penalties_on_matrices_are_nothing_where_only_vectors_learn() -> None:
    spec = Regularization.model_validate(
        {name: {"strength": 0.5} for name in ("l1", "l2", "elastic_net", "group_lasso", "orthogonal")}
    )
    bias = nn.Parameter(torch.ones(3))
    bias.grad = torch.full((3,), 2.0)
    regularizer = build_regularizer(spec, nn.Module(), [("bias", bias)])
    regularizer.pull()
    gauges = regularizer.part().gauges
    assert {name: read().item() for name, read in gauges.items()} == dict.fromkeys(gauges, 0.0)
    assert len(gauges) >= 5
    assert torch.equal(bias.grad, torch.full((3,), 2.0))


@pytest.mark.parametrize(("name", "pattern"), [("l1", "nothing*"), ("orthogonal", "bias"), ("group_lasso", "bias")])
def test_a_penalty_on_no_weight_at_all_is_refused(name: str, pattern: str) -> None:
    learned = [("weight", nn.Parameter(torch.ones(2, 2))), ("bias", nn.Parameter(torch.ones(3)))]
    check_penalties(Regularization.model_validate({name: {"strength": 0.5, "pattern": "w*"}}), learned)
    with pytest.raises(SpecProblem, match=f"regularization.{name}.pattern"):
        check_penalties(Regularization.model_validate({name: {"strength": 0.5, "pattern": pattern}}), learned)
