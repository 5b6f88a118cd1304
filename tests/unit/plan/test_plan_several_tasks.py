"""Heads on one trunk: parameters, FLOPs and kept activations as planned, against the trainer's own models."""

import json
from itertools import product
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from stoker.errors import SpecError
from stoker.facts import ColumnFacts, TableFacts
from stoker.plan import plan
from stoker.plan.draw import draw
from stoker.plan.known import known_of
from stoker.spec import JobSpec
from stoker.spec.model.sharing import Share
from stoker.spec.regularization import Regularization
from tests.support.plan_cases import facts, resolved
from tests.support.plan_measure import NARROW, kept_bytes
from worker.trainer.data import Answer, Description
from worker.trainer.model import build_model
from worker.trainer.precision import narrowed
from worker.trainer.regularization.spectral_norm import bound
from worker.trainer.task.multi_task import join_losses, width_of, with_heads

pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
BATCH = 8
TABLE = facts(
    TableFacts(
        format="csv",
        rows=90,
        columns=tuple(ColumnFacts(name=name, kind="number", distinct=3) for name in ("a", "b", "t", "u", "v", "w")),
    )
)
WHICH: dict[str, Any] = {"type": "classification", "name": "which", "target": "t"}
WHERE: dict[str, Any] = {"type": "regression", "name": "where", "target": ["u", "v"]}
SIZE: dict[str, Any] = {"type": "regression", "name": "size", "target": "w"}
TASKS = {
    "learned": [WHICH, WHERE, SIZE | {"loss": {"type": "mae"}}],
    "numbers off": [WHICH, WHERE | {"weight": 0.0}, SIZE | {"loss": {"type": "huber"}}],
    "classes off": [WHICH | {"weight": 0.0}, WHERE | {"loss": {"type": "gaussian_nll"}}, SIZE],
}


def case(tasks: str, weighting: str, mode: str, hidden: list[int]) -> tuple[JobSpec, Description]:
    job = {
        "task": {"type": "multi_task", "tasks": TASKS[tasks], "weighting": {"type": weighting}},
        "model": {"type": "mlp", "hidden_sizes": hidden, "activation": "tanh"},
        "data": {"source": {"type": "csv", "dataset": "set@1"}},
        "precision": {"mode": mode},
        "training": {"epochs": 1, "batch_size": BATCH},
    }
    answers = (Answer("which", 3, ("0", "1", "2")), Answer("where", 2), Answer("size", 1))
    return resolved(JobSpec.model_validate_json(json.dumps(job)), TABLE), Description((2,), 6, answers=answers)


def built(spec: JobSpec, about: Description) -> torch.nn.Module:
    model = build_model(spec.model, (2,), width_of(spec.task, spec.loss, about), text=False)
    return narrowed(with_heads(spec.task, model, about), spec.precision)


def targets() -> torch.Tensor:
    return torch.cat((torch.randint(0, 3, (BATCH, 1)).float(), torch.randn(BATCH, 3)), 1)


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
@pytest.mark.parametrize("tasks", TASKS)
def test_heads_are_planned_to_the_byte(tasks: str, weighting: str) -> None:
    for mode, hidden in product(["fp32", "bf16_mixed", "bf16_pure"], [[5], []]):
        spec, about = case(tasks, weighting, mode, hidden)
        model, meant = built(spec, about), targets()
        loss, tape = join_losses(spec.task, about, meant), draw(spec, known_of(spec, TABLE), BATCH)
        learned = [p for p in model.parameters() if p.requires_grad]
        assert plan(spec, TABLE).parameters.total == sum(p.numel() for p in learned)
        assert tape.weight_bytes == sum(p.nbytes for p in learned)
        planned = sorted((weight.name, weight.shape) for weight in (*tape.weights, *tape.buffers))
        assert planned == sorted((name, tuple(value.shape)) for name, value in model.state_dict().items())
        with kept_bytes(model) as kept, torch.autocast("cpu", NARROW.get(mode), enabled=spec.precision.mixed):
            loss(model(torch.randn(BATCH, 2)), meant)
        assert tape.activation_bytes == kept.bytes, (mode, hidden)
        if mode == "fp32":
            with FlopCounterMode(display=False) as counter:
                total = loss(model(torch.randn(BATCH, 2)), meant)
                assert tape.forward == counter.get_total_flops()
                total.backward()
            assert tape.forward + tape.backward == counter.get_total_flops(), hidden


def test_heads_that_learn_nothing_are_bounded_too() -> None:
    """The vectors of spectral norm of a task without weight are counted as the trainer keeps them."""
    spec, about = case("numbers off", "fixed", "fp32", [5])
    limits = Regularization.model_validate({"spectral_norm": {}})
    spec = spec.model_copy(update={"regularization": limits})
    model = bound(limits.spectral_norm, built(spec, about))
    tape = draw(spec, known_of(spec, TABLE), BATCH)
    kept = {weight.name.rpartition(".")[0] for weight in tape.buffers if weight.name.endswith(".u")}
    assert len(kept) == len(TASKS["numbers off"]) + 1
    planned = sorted(weight.shape for weight in (*tape.weights, *tape.buffers))
    assert planned == sorted(tuple(value.shape) for value in model.state_dict().values())


@pytest.mark.parametrize(("source", "target"), [("2", "4"), ("4", "2")])
def test_a_layer_that_becomes_heads_is_not_shared(source: str, target: str) -> None:
    """Six outputs from six inputs fit the layer before, whose weights they may not be; the hidden layers may share theirs."""
    spec, _ = case("numbers off", "fixed", "fp32", [6, 6, 6])
    apart = spec.model_copy(update={"model": spec.model.model_copy(update={"sharing": (Share(source="2", target="4"),)})})
    draw(apart, known_of(apart, TABLE), BATCH)
    spec, _ = case("numbers off", "fixed", "fp32", [6, 6])
    shared = spec.model_copy(update={"model": spec.model.model_copy(update={"sharing": (Share(source=source, target=target),)})})
    with pytest.raises(SpecError) as refused:
        draw(shared, known_of(shared, TABLE), BATCH)
    assert [finding.pointer for finding in refused.value.findings] == ["/model/sharing"]
