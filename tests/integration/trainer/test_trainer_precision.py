"""Number formats through the whole trainer, against plain PyTorch that does the same."""

import json
import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from stoker.spec import JobSpec
from stoker.spec.precision import DynamicScale, LossScale, Precision, StaticScale
from tests.support.same_runs import interrupted
from tests.support.trainer_runs import Nursery, blobs, final_checkpoint, log, prepared, series, tensors, trained
from worker.trainer.errors import Diverged, SpecProblem
from worker.trainer.model.parts import BatchNormAny
from worker.trainer.precision import Arithmetic, LossScaler, NoScaler, narrowed
from worker.trainer.predict import load
from worker.trainer.runtime.world import World

ALONE = World(0, 1, torch.device("cpu"), data_index=0, data_parts=1)
SPEC: dict[str, Any] = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [16]},
    "data": {
        "source": {"type": "arrays", "dataset": "set@1"},
        "split": {"strategy": "contiguous", "validation": 0.1, "test": 0.1},
        "loader": {"shuffle": False},
    },
    "optimizer": {"type": "adamw", "lr": 0.003},
    "training": {"max_steps": 100, "batch_size": 32},
    "logging": {"interval": {"steps": 1}},
    "checkpoint": {"interval": {"steps": 13}},
}


def _train(nursery: Nursery, home: Path, spec: dict[str, Any], ranks: int = 1) -> Path:
    if ranks > 1:
        spec = spec | {"distributed": {"strategy": "ddp", "processes_per_node": ranks}}
    return trained(nursery, home, spec, ranks)


def _losses(home: Path) -> list[float]:
    return [value for (_, key), value in series(home).items() if key == "train/loss"]


def _rows() -> tuple[torch.Tensor, torch.Tensor]:
    """The 163 training rows, in their order."""
    data = blobs()
    return torch.from_numpy(data["x"][:163]), torch.from_numpy(data["y"][:163])


class Formats(TorchDispatchMode):
    """Which formats the floating inputs of each kernel had."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kinds = {arg.dtype for arg in args if isinstance(arg, torch.Tensor) and arg.is_floating_point()}
        self.seen.setdefault(func.overloadpacket.__name__, set()).update(kinds)
        return func(*args, **(kwargs or {}))


@pytest.mark.proves("TRAIN-04", "TRAIN-07")
@pytest.mark.parametrize(("mode", "narrow"), [("bf16_mixed", torch.bfloat16), ("fp16_mixed", torch.float16)])
def test_mixed_precision_multiplies_in_16_bits_and_takes_logarithms_in_32(mode: Any, narrow: torch.dtype) -> None:
    arithmetic, model = Arithmetic(Precision(mode=mode), ALONE), nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 4))
    with Formats() as formats:
        with arithmetic.autocast():
            loss = F.cross_entropy(model(torch.randn(5, 8)), torch.tensor([0, 1, 2, 3, 0]), reduction="sum")
        loss.backward()
    assert formats.seen["addmm"] == {narrow}  # forward
    assert formats.seen["mm"] == {narrow}  # backward
    assert formats.seen["_log_softmax"] == formats.seen["nll_loss_forward"] == {torch.float32}
    assert loss.dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


def test_full_precision_multiplies_in_32_bits() -> None:
    arithmetic, model = Arithmetic(Precision(), ALONE), nn.Linear(8, 4)
    with Formats() as formats, arithmetic.autocast():
        model(torch.randn(5, 8))
    assert formats.seen["addmm"] == {torch.float32}
    assert isinstance(arithmetic.scaler, NoScaler)


@pytest.fixture(scope="module")
def full(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in fp32 that others are compared with."""
    return _train(nursery, tmp_path_factory.mktemp("full") / "run", SPEC)


@pytest.mark.proves("TRAIN-04", "TRAIN-07")
@pytest.mark.parametrize("mode", ["fp16_mixed", "bf16_mixed"])
def test_mixed_precision_learns_as_full_precision_with_weights_in_32_bits(
    mode: str, full: Path, nursery: Nursery, tmp_path: Path
) -> None:
    home = _train(nursery, tmp_path / "run", SPEC | {"precision": {"mode": mode}})
    assert np.mean(_losses(home)[-10:]) == pytest.approx(np.mean(_losses(full)[-10:]), rel=0.01)
    assert _losses(home) != _losses(full)
    path = final_checkpoint(home)
    kept = [*tensors(path / "model.safetensors").values(), *tensors(path / "optimizer.safetensors").values()]
    assert {tensor.dtype for tensor in kept} == {torch.float32}


@pytest.mark.proves("TRAIN-05")
@pytest.mark.parametrize(("mode", "narrow"), [("bf16_pure", torch.bfloat16), ("fp16_pure", torch.float16)])
def test_pure_precision_halves_weights_and_moments(
    mode: str, narrow: torch.dtype, full: Path, nursery: Nursery, tmp_path: Path
) -> None:
    spec = SPEC | {"precision": {"mode": mode}, "optimizer": {"type": "adamw", "lr": 0.003, "eps": 1e-4}}
    home = _train(nursery, tmp_path / "run", spec, ranks=2)
    path, wide = final_checkpoint(home), final_checkpoint(full)
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, other = tensors(path / name), tensors(wide / name)
        assert one.keys() == other.keys()
        for key, tensor in one.items():
            assert tensor.dtype == (torch.float32 if key.endswith(".step") else narrow), key
            assert tensor.dim() == 0 or 2 * tensor.nbytes == other[key].nbytes
    assert np.mean(_losses(home)[-10:]) == pytest.approx(np.mean(_losses(full)[-10:]), rel=0.1)
    # what was judged is what a user gets: the same numbers, from the checkpoint alone
    data, model = blobs(), load(path)
    assert model.outputs(data["x"][:4]).dtype == np.float32
    said = model.predict(data["x"][183:])
    assert series(home)[100, "test/accuracy"] == pytest.approx(np.mean(said == data["y"][183:]), abs=1e-6)


@pytest.mark.proves("TRAIN-05")
@pytest.mark.parametrize("mode", ["bf16_pure", "fp16_pure"])
def test_batch_norm_stays_in_32_bits_and_answers_are_in_32_bits(mode: Any) -> None:
    model = narrowed(nn.Sequential(nn.Linear(6, 4), BatchNormAny(4), nn.ReLU(), nn.Linear(4, 2)), Precision(mode=mode))
    narrow = torch.bfloat16 if mode == "bf16_pure" else torch.float16
    out = model(torch.randn(7, 6))
    assert out.dtype == torch.float32
    out.square().sum().backward()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        wide = torch.int64 if "tracked" in name else torch.float32
        assert tensor.dtype == (wide if name.startswith("1.") else narrow), name
        assert tensor.grad is None or tensor.grad.dtype == tensor.dtype


def _reference(spec: DynamicScale, steps: int) -> tuple[list[float], list[float], nn.Module]:
    """Losses and scales of the same job by PyTorch's own scaler in a plain loop, and the model."""
    torch.manual_seed(JobSpec.model_fields["reproducibility"].default.seed)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.AdamW(model.parameters(), 0.003, weight_decay=0.01)
    scaler = torch.amp.GradScaler(
        "cpu",
        init_scale=spec.init_scale,
        growth_factor=spec.growth_factor,
        backoff_factor=spec.backoff_factor,
        growth_interval=spec.growth_interval,
    )
    inputs, targets = _rows()
    losses, scales = [], []
    starts = [(at, min(at + 32, 163)) for at in range(0, 163, 32)]
    for step in range(steps):
        begin, end = starts[step % len(starts)]
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(model(inputs[begin:end]), targets[begin:end])
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
        scales.append(scaler.get_scale())
    return losses, scales, model


@pytest.mark.proves("TRAIN-06")
def test_the_trace_of_the_scale_is_that_of_pytorch(nursery: Nursery, tmp_path: Path) -> None:
    scale = {"mode": "dynamic", "init_scale": 2.0**30, "growth_factor": 4.0, "backoff_factor": 0.5, "growth_interval": 3}
    training = SPEC["training"] | {"max_steps": 50, "gradient_clipping": {"type": "norm", "max_norm": 1.0}}
    spec = SPEC | {"precision": {"mode": "fp16_mixed", "loss_scale": scale}, "training": training}
    home = _train(nursery, tmp_path / "run", spec)
    losses, scales, model = _reference(DynamicScale.model_validate(scale), 50)
    assert [series(home)[step, "train/loss_scale"] for step in range(1, 51)] == scales
    assert _losses(home) == pytest.approx(losses, rel=1e-3)
    skipped = sum(after < before for before, after in pairwise([2.0**30, *scales]))
    assert series(home)[50, "train/skipped_steps"] == skipped > 8
    assert any(after > before for before, after in pairwise(scales))
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensors(final_checkpoint(home) / "model.safetensors")[name], tensor, rtol=0, atol=2e-3)


def _steps(scaler: LossScaler, gradients: list[float]) -> tuple[list[float], list[float]]:
    """The scale and the weight after each step, whose gradient is given; SGD with a rate of one and momentum."""
    weight = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([weight], 1.0, momentum=0.5, fused=True)
    scales, weights = [], []
    for gradient in gradients:
        factor = scaler.scaled(torch.ones(()))
        weight.grad = torch.tensor([1.0, 1.0, gradient]) * factor
        scaler.unscale(optimizer)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.scale)
        weights.append(weight[0].item())
    return scales, weights


@pytest.mark.proves("TRAIN-06")
@pytest.mark.parametrize("worst", [float("inf"), float("-inf"), float("nan")])
def test_an_overflow_skips_the_step_and_halves_the_scale_which_grows_again(worst: float) -> None:
    scaler = LossScaler(DynamicScale(init_scale=64.0, growth_interval=2), ALONE)
    scales, weights = _steps(scaler, [worst, 1.0, 1.0, 1.0, worst, 1.0, 1.0])
    assert scales == [32.0, 32.0, 64.0, 64.0, 32.0, 32.0, 64.0]
    # momentum 0.5: the updates are 1, 1.5, 1.75 … and a skipped step leaves both weight and momentum
    assert weights == [0.0, -1.0, -2.5, -4.25, -4.25, -6.125, -8.0625]
    assert scaler.skipped == 2


def test_a_static_scale_stays_and_skips_overflows() -> None:
    scaler = LossScaler(StaticScale(scale=8.0), ALONE)
    scales, weights = _steps(scaler, [1.0, float("inf"), 1.0])
    assert scales == [8.0] * 3
    assert weights == [-1.0, -1.0, -2.5]


def test_gradients_that_are_never_numbers_end_the_run_instead_of_skipping_for_ever() -> None:
    scaler = LossScaler(DynamicScale(), ALONE)
    with pytest.raises(Diverged, match="loss scale"):
        _steps(scaler, [float("nan")] * 100)


def test_a_scale_never_grows_beyond_what_its_format_holds() -> None:
    scaler = LossScaler(DynamicScale(init_scale=1e12, growth_factor=1024.0, growth_interval=1), ALONE)
    assert max(_steps(scaler, [1.0] * 20)[0]) <= torch.finfo(torch.float32).max


@pytest.mark.parametrize(("spec", "kept"), [(DynamicScale(growth_interval=3), 65536.0), (StaticScale(scale=4.0), 4.0)])
def test_a_scaler_goes_on_where_another_left(spec: LossScale, kept: float) -> None:
    pattern = [1.0, 1.0, float("inf"), 1.0, 1.0, 1.0, 1.0]
    whole = LossScaler(spec, ALONE)
    expected = _steps(whole, pattern)[0]
    first, second = LossScaler(spec, ALONE), LossScaler(spec, ALONE)
    begun = _steps(first, pattern[:4])[0]
    second.load(first.tensors(), first.values())
    assert begun + _steps(second, pattern[4:])[0] == expected
    assert second.skipped == whole.skipped == 1
    fresh = LossScaler(spec, ALONE)
    fresh.load({}, {})  # the checkpoint is of a run in another format
    assert fresh.scale == kept


HALF = {"mode": "fp16_mixed", "loss_scale": {"mode": "dynamic", "init_scale": 2.0**26, "growth_interval": 4}}


@pytest.mark.proves("TRAIN-06")
@pytest.mark.parametrize(("precision", "ranks"), [(HALF, 1), (HALF, 2), ({"mode": "bf16_pure"}, 2)])
def test_a_resumed_run_has_the_bits_of_the_uninterrupted(
    precision: dict[str, Any], ranks: int, nursery: Nursery, tmp_path: Path
) -> None:
    spec = SPEC | {"precision": precision, "model": {"type": "mlp", "hidden_sizes": [16], "dropout": 0.1}}
    spec |= {"training": {"max_steps": 40, "batch_size": 32}}
    whole = _train(nursery, tmp_path / "whole", spec, ranks)
    more = {"distributed": {"strategy": "ddp", "processes_per_node": ranks}} if ranks > 1 else {}
    broken = prepared(tmp_path / "broken", spec | more)
    interrupted(nursery, broken, ranks, (20, signal.SIGTERM))
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, other = (tensors(final_checkpoint(home) / name) for home in (whole, broken))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert series(whole) == pytest.approx(series(broken), rel=0, abs=0, nan_ok=True)


class Elsewhere(World):
    """A world in which another rank found an overflow."""

    def most(self, value: torch.Tensor) -> torch.Tensor:
        return value.fill_(1.0)


def test_an_overflow_on_another_rank_skips_the_step_of_this_one() -> None:
    scaler = LossScaler(DynamicScale(init_scale=4.0), Elsewhere(0, 2, torch.device("cpu"), data_index=0, data_parts=2))
    assert _steps(scaler, [1.0, 1.0]) == ([2.0, 1.0], [0.0, 0.0])


OVERFLOW = """
import json, os
from tests.integration.trainer.test_trainer_precision import overflow_on_rank_1

rank = int(os.environ["RANK"])
(home / f"answer-{rank}").write_text(json.dumps(overflow_on_rank_1(rank)))
os._exit(0)
"""


def test_ranks_tell_each_other_of_an_overflow(nursery: Nursery, tmp_path: Path) -> None:
    """What other ranks found is asked for among all of them, those that hold another part of the same model too."""
    assert nursery.run(tmp_path, 2, OVERFLOW) == [0, 0], log(tmp_path)
    answers = [json.loads((tmp_path / f"answer-{rank}").read_text()) for rank in (0, 1)]
    assert answers == [[[32.0, 64.0], [0.0, -1.0]]] * 2


def overflow_on_rank_1(rank: int) -> tuple[list[float], list[float]]:
    """Scales and weights of a rank, of two, whose first gradient is too large on one of them."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo")
    scaler = LossScaler(
        DynamicScale(init_scale=64.0, growth_interval=1), World(rank, 2, torch.device("cpu"), data_index=rank, data_parts=2)
    )
    return _steps(scaler, [float("inf") if rank else 1.0, 1.0])


def test_formats_that_are_not_built_are_refused_by_the_trainer_too() -> None:
    with pytest.raises(SpecProblem, match="fp8"):
        Arithmetic(Precision(mode="fp8"), ALONE)
