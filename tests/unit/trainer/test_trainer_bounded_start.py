"""Weights that were divided whenever they were read, taken over by another run; heads that are left as they were drawn."""

import json

import pytest
import torch
from torch import nn

from stoker.spec.initialization import Warm
from stoker.spec.regularization import SpectralNorm
from stoker.spec.task.multi_task import MultiTask
from worker.trainer.initialization import Given, fill, head_of
from worker.trainer.regularization.spectral_norm import bound, divided
from worker.trainer.runtime.names import plain
from worker.trainer.task.multi_task import Heads


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


@pytest.mark.parametrize("pattern", [None, "2.*"])
def test_a_start_from_bounded_weights_says_what_their_run_said(pattern: str | None) -> None:
    torch.manual_seed(7)
    taught, fresh, x = network(), network(), torch.randn(4, 6)
    dict(taught.named_parameters())["2.weight"].data.mul_(9.0)
    bound(SpectralNorm(pattern=pattern), taught).eval()
    saved = {plain(name): tensor for name, tensor in taught.state_dict().items()}
    start = Warm.model_validate({"checkpoint": {"job": "job_" + "0" * 26, "checkpoint": 3}})
    notice = fill(start, fresh, Given(divided(saved), "a checkpoint"))
    assert notice.data["loaded"] == 4
    torch.testing.assert_close(fresh(x), taught(x), rtol=0, atol=1e-6)


def test_nothing_to_divide_is_left_as_it_is() -> None:
    state = network().state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in divided(state).items())


def test_the_head_of_several_tasks_is_all_their_heads() -> None:
    heads = [
        {"type": "classification", "name": "kind", "target": "k", "num_classes": 4},
        {"type": "regression", "name": "size", "target": "s", "num_outputs": 1},
    ]
    spec = MultiTask.model_validate_json(json.dumps({"tasks": heads, "weighting": {"type": "uncertainty"}}))
    model = nn.Sequential(nn.Linear(6, 4), Heads(nn.Linear(4, 5), spec, (4, 1)))
    layers = {f"1.head_{name}.{part}" for name in ("kind", "size") for part in ("weight", "bias")}
    assert head_of(model) == layers | {"1.log_variance_kind", "1.log_variance_size"}
