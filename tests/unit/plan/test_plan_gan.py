"""Two networks on paper, against the trainer's own: state, FLOPs and what either kind of pass keeps, to the byte."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from stoker.errors import SpecError
from stoker.plan import plan
from stoker.plan.draw import draw
from stoker.plan.known import known_of
from stoker.spec import JobSpec
from stoker.spec.loss import Contested
from tests.support.plan_cases import Json, arrays, job, resolved
from tests.support.plan_measure import NARROW, kept_bytes
from worker.trainer.gan.passes import DiscriminatorObjective, at_rest
from worker.trainer.loss import GanLoss
from worker.trainer.model import GanModel, build_model
from worker.trainer.regularization.spectral_norm import bound

BATCH = 4
PICTURES, NUMBERS = arrays(100, 3, 12, 12), arrays(100, 10)
DEEP: Json = {"type": "mlp", "hidden_sizes": [24, 12], "activation": "leaky_relu"}
LAYERS: Json = {
    "type": "layers",
    "layers": [
        {"type": "linear", "units": 288},
        {"type": "reshape", "shape": [2, 12, 12]},
        {"type": "norm"},
        {"type": "activation", "kind": "silu"},
        {"type": "conv", "channels": 3, "padding": 1},
    ],
}
CONVOLVED: Json = {
    "type": "layers",
    "layers": [
        {"type": "conv", "channels": 6, "padding": 1, "stride": 2},
        {"type": "activation"},
        {"type": "pool", "kind": "global_avg"},
        {"type": "linear", "units": 1},
    ],
}
CASES: dict[str, tuple[Json, Json, Any]] = {
    "mlp": ({"generator": DEEP, "discriminator": DEEP}, {"type": "non_saturating"}, NUMBERS),
    "mlp-of-pictures": ({"discriminator": DEEP, "output": "tanh"}, {"type": "hinge"}, PICTURES),
    "smooth": ({"generator": DEEP | {"normalization": {"type": "batch"}}, "output": "sigmoid"}, {"type": "non_saturating", "label_smoothing": 0.1}, NUMBERS),
    "layers": ({"generator": LAYERS, "discriminator": CONVOLVED}, {"type": "hinge"}, PICTURES),
    "cnn": ({"generator": LAYERS, "discriminator": {"type": "cnn", "stages": [{"channels": 4}]}}, {"type": "wasserstein", "gradient_penalty": 0.0}, PICTURES),
    "wide-latent": ({"latent_dim": 200, "discriminator": DEEP | {"dropout": 0.1}}, {"type": "wasserstein", "gradient_penalty": 0.0}, NUMBERS),
}  # fmt: skip
SLOPES: Json = {"type": "wasserstein"}


def gan(model: Json, loss: Json, content: Any, mode: str = "fp32", every: int = 1, **more: Any) -> JobSpec:
    sections = {
        "task": {"type": "gan", "discriminator_steps": every},
        "model": {"type": "gan", "latent_dim": 5} | model,
        "loss": loss,
        "data": {"source": {"type": "arrays", "dataset": "set@1"}},
        "training": {"max_steps": 20, "batch_size": 8, "micro_batch_size": 8},
        "precision": {"mode": mode},
    }
    return resolved(job(**(sections | more)), content)


def both(spec: JobSpec, content: Any) -> tuple[GanModel, GanLoss]:
    known = known_of(spec, content)
    model = bound(spec.regularization.spectral_norm, build_model(spec.model, known.shape, known.outputs, text=False))
    assert isinstance(model, GanModel)
    assert isinstance(spec.loss, Contested)
    return model, GanLoss(spec.loss, model.judging)


def rows(content: Any, spec: JobSpec) -> tuple[torch.Tensor, torch.Tensor]:
    known = known_of(spec, content)
    return torch.randn(BATCH, 2 * spec.model.latent_dim + 1), torch.randn(BATCH, known.outputs)


@pytest.mark.proves("ARCH-24", cases=["layers-fp32"])
@pytest.mark.parametrize("mode", ["fp32", "bf16_mixed"])
@pytest.mark.parametrize("name", CASES)
def test_two_networks_are_what_the_plan_says(name: str, mode: str) -> None:
    model, loss, content = CASES[name]
    spec = gan(model, loss, content, mode, every=3)
    tape, (gan_model, gan_loss) = draw(spec, known_of(spec, content), BATCH), both(spec, content)
    tensors = [(w.name, w.shape) for w in (*tape.weights, *tape.buffers)]
    assert sorted(tensors) == sorted((name, tuple(tensor.shape)) for name, tensor in gan_model.state_dict().items())
    assert plan(spec, content).parameters.total == sum(p.numel() for p in gan_model.parameters())
    noise, real = rows(content, spec)
    narrow = torch.autocast("cpu", NARROW.get(mode), enabled=spec.precision.mixed)
    with kept_bytes(gan_model) as teaching, narrow:
        DiscriminatorObjective(gan_model, gan_loss)(noise, real)
    fresh = noise[:, spec.model.latent_dim :]
    with kept_bytes(gan_model) as learning, at_rest(gan_model.discriminator), narrow:
        gan_loss(gan_model.drawing(fresh), real)
    assert tape.activation_bytes == max(teaching.bytes, learning.bytes), (teaching.bytes, learning.bytes)


@pytest.mark.parametrize("name", CASES)
def test_work_is_that_of_all_passes(name: str) -> None:
    model, loss, content = CASES[name]
    spec = gan(model, loss, content, every=1)
    gan_model, gan_loss = both(spec, content)
    noise, real = rows(content, spec)
    with FlopCounterMode(display=False) as counter:
        DiscriminatorObjective(gan_model, gan_loss)(noise, real).backward()
        with at_rest(gan_model.discriminator):
            gan_loss(gan_model.drawing(noise), real).backward()
    assert plan(spec, content).flops.step_per_sample_flops * BATCH == counter.get_total_flops()


class Count(TorchDispatchMode):
    """FLOPs by operation; PyTorch's own counter follows modules too, and cannot where slopes are taken within a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (cost := flop_registry.get(func._overloadpacket)) is not None:
            self.total += cost(*args, **(kwargs or {}), out_val=out)
        return out


@pytest.mark.parametrize("model", [{"discriminator": DEEP}, {"generator": LAYERS, "discriminator": CONVOLVED}])
def test_slopes_are_nearly_what_the_plan_says(model: Json) -> None:
    """Their second derivatives are not followed operation by operation."""
    spec = gan(model, SLOPES, PICTURES)
    gan_model, gan_loss = both(spec, PICTURES)
    noise, real = rows(PICTURES, spec)
    with Count() as counter:
        with kept_bytes(gan_model) as kept:
            loss = DiscriminatorObjective(gan_model, gan_loss)(noise, real)
        loss.backward()
        with at_rest(gan_model.discriminator):
            gan_loss(gan_model.drawing(noise), real).backward()
    predicted, tape = plan(spec, PICTURES).flops.step_per_sample_flops * BATCH, draw(spec, known_of(spec, PICTURES), BATCH)
    assert predicted == pytest.approx(counter.total, rel=0.05)
    assert tape.activation_bytes == pytest.approx(kept.bytes, rel=0.03)


def test_each_optimizer_remembers_its_network() -> None:
    """The generator's has two moments, the discriminator's none; gradients are there of one network at a time."""
    task = {"type": "gan", "discriminator_optimizer": {"type": "sgd", "lr": 0.1}}
    spec = gan({"generator": DEEP, "discriminator": DEEP}, {"type": "hinge"}, NUMBERS, task=task)
    gan_model, _ = both(spec, NUMBERS)
    sizes = {n: sum(p.numel() for p in part.parameters()) for n, part in gan_model.named_children()}
    memory = plan(spec, NUMBERS).memory
    steps = 4 * len(list(gan_model.generator.parameters()))
    assert memory.optimizer_bytes == 2 * 4 * sizes["generator"] + steps
    assert memory.gradients_bytes == 4 * max(sizes.values())
    assert memory.weights_bytes == 4 * sum(sizes.values())


def test_patterns_are_those_within_a_network() -> None:
    group = {"pattern": "generator.*", "lr_scale": 0.5}
    task = {"type": "gan", "discriminator_optimizer": {"type": "sgd", "lr": 0.1, "param_groups": [{"pattern": "2.*"}, group]}}
    spec = gan({"generator": DEEP, "discriminator": DEEP}, {"type": "hinge"}, NUMBERS, task=task)
    with pytest.raises(SpecError) as refused:
        plan(spec, NUMBERS)
    assert [each.pointer for each in refused.value.findings] == ["/task/discriminator_optimizer/param_groups/1/pattern"]


def test_a_spectral_bound_costs_what_it_keeps() -> None:
    spec = gan(
        {"generator": DEEP, "discriminator": DEEP},
        {"type": "hinge"},
        NUMBERS,
        regularization={"spectral_norm": {"pattern": "discriminator.*"}},
    )
    gan_model, _ = both(spec, NUMBERS)
    tape = draw(spec, known_of(spec, NUMBERS), BATCH)
    buffers = {name: tuple(tensor.shape) for name, tensor in gan_model.named_buffers()}
    assert {w.name: w.shape for w in tape.buffers} == buffers
