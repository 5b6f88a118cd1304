"""Truncated backpropagation through time against one written out by hand, window by window, with torch's cells."""

import json
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from stoker.plan import plan
from stoker.spec import JobSpec
from stoker.spec.data.loader import Loader
from stoker.spec.derived.arithmetic import time_windows
from stoker.spec.loss import CrossEntropy, MeanSquaredError
from stoker.spec.model import Model
from stoker.spec.precision import Precision
from stoker.spec.training.truncation import TBPTT
from tests.support.plan_cases import language, resolved, text
from worker.trainer.data import Batch, Feed, TensorSamples
from worker.trainer.distributed.single import Alone
from worker.trainer.errors import SpecProblem
from worker.trainer.loss import build_loss
from worker.trainer.model import build_model
from worker.trainer.model.recurrent import Recurrent
from worker.trainer.precision import Arithmetic
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.world import World
from worker.trainer.training.passes import Accumulated
from worker.trainer.training.truncation import Truncated, build_portions

SPEC: TypeAdapter[Any] = TypeAdapter(Model)
ALONE = World(0, 1, torch.device("cpu"), 0, 1)
LENGTH, VOCABULARY, BATCH = 12, 9, 6
KINDS: list[dict[str, Any]] = [{"type": "rnn"}, {"type": "gru"}, {"type": "lstm", "num_layers": 2}]


def recurrent(spec: dict[str, Any], shape: tuple[int, ...], outputs: int, *, text: bool) -> Recurrent:
    torch.manual_seed(0)
    model = build_model(SPEC.validate_json(json.dumps({"hidden_size": 7} | spec)), shape, outputs, text=text)
    assert isinstance(model, Recurrent)
    return model.double()


def tokens(count: int = BATCH, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.randint(0, VOCABULARY, (count * LENGTH + 1,), generator=torch.Generator().manual_seed(seed))
    return stream[:-1].view(count, LENGTH), stream[1:].view(count, LENGTH)


def run(model: Recurrent, cut: Truncated, inputs: torch.Tensor, targets: torch.Tensor, micros: int = 1) -> tuple[Any, float]:
    """Gradients and summed loss of one step, as the trainer makes them."""
    model.zero_grad()
    spec = MeanSquaredError() if targets.is_floating_point() else CrossEntropy()
    passes = Accumulated(Alone(Objective(model, build_loss(spec, VOCABULARY, targets))), Arithmetic(Precision(), ALONE), cut)
    parts = tuple(zip(inputs.chunk(micros), targets.chunk(micros), strict=True))
    total = passes(Batch(parts, 1.0, torch.tensor(1 / targets.numel(), dtype=torch.float64)))
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, float(total)


def truncated(
    model: Recurrent, steps: int, stride: int | None = None, *, stateful: bool = False, per_epoch: int = 1
) -> Truncated:
    spec = TBPTT(steps=steps, stride=stride, stateful=stateful)
    return Truncated(spec, model, batch_size=BATCH, per_epoch=per_epoch, world=ALONE)


def by_hand(model: Recurrent, inputs: torch.Tensor, targets: torch.Tensor, steps: int, stride: int, first: Any = None) -> Any:
    """Gradients of the mean loss: every error goes back through its own window alone, begun with the memory of a plain run."""
    assert model.tokens is not None
    assert model.head is not None
    memories, memory = [first], first
    with torch.no_grad():
        for t in range(LENGTH):
            _, memory = model.layers(model.tokens(inputs[:, t : t + 1]), memory)
            memories.append(memory)
    model.zero_grad()
    for t in range(LENGTH):
        end = (t // stride + 1) * stride
        start, stop = max(0, end - steps), min(end, LENGTH)
        said, _ = model.layers(model.tokens(inputs[:, start:stop]), memories[start])
        error = F.cross_entropy(model.head(said[:, t - start]), targets[:, t], reduction="sum")
        (error / targets.numel()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, memory


@pytest.mark.proves("TRAIN-08")
@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec["type"])
@pytest.mark.parametrize(("steps", "stride"), [(3, 3), (6, 2), (5, 5), (12, 12), (6, 1)])
def test_gradients_are_those_of_every_error_in_its_window(spec: dict[str, Any], steps: int, stride: int) -> None:
    model, (inputs, targets) = recurrent(spec, (LENGTH,), VOCABULARY, text=True), tokens()
    expected, _ = by_hand(model, inputs, targets, steps, stride)
    found, _ = run(model, truncated(model, steps, stride), inputs, targets, micros=2)
    assert found.keys() == expected.keys()
    for name, grad in found.items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.proves("TRAIN-08")
@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec["type"])
def test_windows_as_long_as_samples_change_nothing(spec: dict[str, Any]) -> None:
    model, (inputs, targets) = recurrent(spec, (LENGTH,), VOCABULARY, text=True), tokens()
    logits = model(inputs)
    F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    found, total = run(model, truncated(model, LENGTH), inputs, targets)
    whole = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").detach()
    assert total == pytest.approx(float(whole), rel=1e-12)
    for name, grad in found.items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("steps", [1, 4, 12])
def test_the_loss_is_that_of_the_whole_sequence_for_any_window(steps: int) -> None:
    model, (inputs, targets) = recurrent({"type": "lstm"}, (LENGTH,), VOCABULARY, text=True), tokens()
    whole = float(F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum").detach())
    assert run(model, truncated(model, steps), inputs, targets)[1] == pytest.approx(whole, rel=1e-12)


@pytest.mark.proves("TRAIN-08")
@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec["type"])
@pytest.mark.parametrize("steps", [1, 5, 12])
def test_no_gradient_reaches_inputs_before_the_window_and_all_of_it_those_inside(spec: dict[str, Any], steps: int) -> None:
    model = recurrent(spec, (LENGTH, 3), 2, text=False)
    x, y = torch.randn(BATCH, LENGTH, 3, dtype=torch.float64), torch.randn(BATCH, 2, dtype=torch.float64)
    full = x.clone().requires_grad_()
    F.mse_loss(model(full), y).backward()
    cut = x.clone().requires_grad_()
    run(model, truncated(model, steps), cut, y)
    assert full.grad is not None
    assert cut.grad is not None
    assert not cut.grad[:, : LENGTH - steps].any()
    torch.testing.assert_close(cut.grad[:, LENGTH - steps :], full.grad[:, LENGTH - steps :], rtol=1e-10, atol=1e-14)


@pytest.mark.proves("TRAIN-08")
@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec["type"])
def test_a_stateful_run_begins_where_the_sample_before_ended(spec: dict[str, Any]) -> None:
    model = recurrent(spec, (LENGTH,), VOCABULARY, text=True)
    cut, memory = truncated(model, 4, 2, stateful=True, per_epoch=3), None
    for step in range(5):
        inputs, targets = tokens(seed=step)
        memory = memory if step % 3 else None  # an epoch begins with nothing
        expected, memory = by_hand(model, inputs, targets, 4, 2, memory)
        found, _ = run(model, cut, inputs, targets, micros=3)
        for name, grad in found.items():
            torch.testing.assert_close(grad, expected[name], rtol=1e-9, atol=1e-12)
        kept = truncated(model, 4, 2, stateful=True, per_epoch=3)
        kept.load(cut.tensors(), cut.values())
        cut = kept


def test_a_pass_that_fails_leaves_the_streams_where_they_were() -> None:
    model, (inputs, targets) = recurrent({"type": "gru"}, (LENGTH,), VOCABULARY, text=True), tokens()
    cut = truncated(model, 4, stateful=True, per_epoch=9)
    run(model, cut, inputs, targets)
    before, values = cut.tensors(), cut.values()
    going = cut(((inputs, targets),))
    next(going)
    going.close()
    assert model.course is None
    assert cut.values() == values
    assert all(torch.equal(before[name], after) for name, after in cut.tensors().items())


@pytest.mark.parametrize(("length", "steps", "stride"), [(12, 4, 2), (13, 4, 2), (5, 5, 1), (7, 6, 3), (10, 12, 4)])
def test_windows_count_every_step_once(length: int, steps: int, stride: int) -> None:
    windows = list(time_windows(length, steps, stride))
    assert [t for w in windows for t in range(w.stop - w.counted, w.stop)] == list(range(length))
    assert all(w.start % stride == 0 and 0 < w.stop - w.start <= steps for w in windows)
    assert all(w.start == max(0, index * stride + stride - steps) for index, w in enumerate(windows))


@pytest.mark.parametrize("count", [12, 14])
def test_each_place_of_the_batch_is_a_stretch_of_samples(count: int) -> None:
    samples = TensorSamples(torch.arange(count).float().unsqueeze(1), torch.zeros(count, 1))
    options: dict[str, Any] = {"batch_size": 4, "micro_size": 2, "order_seed": lambda epoch: epoch, "world": ALONE}
    feed = Feed(Loader(shuffle=False, drop_last=True), samples, weights=torch.ones(count).double(), streams=True, **options)
    batches = [torch.cat([inputs for inputs, _ in feed.batch(step).micros]).flatten().tolist() for step in range(6)]
    assert batches[:3] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert batches[3:] == batches[:3]


def test_a_model_without_memory_is_refused() -> None:
    options: dict[str, Any] = {"batch_size": 4, "per_epoch": 1, "world": ALONE}
    for model in (nn.Linear(2, 2), recurrent({"type": "gru", "bidirectional": True}, (LENGTH, 3), 2, text=False)):
        with pytest.raises(SpecProblem, match=r"training\.tbptt"):
            build_portions(TBPTT(steps=4), model, **options)


def test_the_plan_counts_the_windows() -> None:
    """FLOPs of all windows, and the memory of one, against the trainer's own passes."""
    content = text(10_000)
    for steps, stride in ((16, 16), (4, 4), (8, 2), (6, 3)):
        training = {"max_steps": 2, "batch_size": 8, "tbptt": {"steps": steps, "stride": stride}}
        spec: JobSpec = resolved(language({"type": "gru", "hidden_size": 24, "num_layers": 2}, 16, training=training), content)
        torch.manual_seed(0)
        model = build_model(spec.model, (16,), 256, text=True)
        assert isinstance(model, Recurrent)
        ids = torch.randint(0, 256, (8, 16))
        cut = Truncated(TBPTT(steps=steps, stride=stride), model, batch_size=8, per_epoch=1, world=ALONE)
        with FlopCounterMode(display=False) as counter:
            run(model, cut, ids, ids)
        assert plan(spec, content).flops.step_flops == counter.get_total_flops()
    short, long = (
        plan(
            resolved(language({"type": "lstm"}, 512, training={"max_steps": 1, "batch_size": 8, "tbptt": cut}), content), content
        )
        for cut in ({"steps": 64}, {"steps": 512})
    )
    assert short.memory.activations_bytes == pytest.approx(long.memory.activations_bytes / 8, rel=0.02)
