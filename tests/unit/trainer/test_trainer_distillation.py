"""Distillation against its formula written out, and what it must leave alone."""

import copy
import json
from functools import partial
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from torch.nn import functional as F

from stoker.spec.loss import CrossEntropy, MeanSquaredError
from stoker.spec.model import Model
from stoker.spec.training.distillation import Distillation
from worker.trainer.data import Description
from worker.trainer.data.normalization import Scaling
from worker.trainer.errors import SpecProblem
from worker.trainer.loss import SummedCrossEntropy, build_loss
from worker.trainer.model import build_model
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.world import World
from worker.trainer.training.distillation import Taught, build_objective

ALONE = World(0, 1, torch.device("cpu"), 0, 1)
ABOUT = Description((5,), 4, ("a", "b", "c", "d"))
X, Y = torch.randn(16, 5, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 4


def net(seed: int, hidden: int = 6) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, hidden), nn.Tanh(), nn.Linear(hidden, 4))


def lesson(**fields: Any) -> Distillation:
    return Distillation.model_validate_json(json.dumps({"teacher": {"job": "job_1", "checkpoint": 3}, **fields}))


def objective(
    spec: Distillation | None, student: nn.Module, teacher: nn.Module | None, *, about: Description = ABOUT, **loss: Any
) -> Objective:
    criterion = build_loss(CrossEntropy(**loss), 4, Y)
    taught = None if teacher is None else Taught(teacher, about)
    return build_objective(spec, student, criterion, taught=taught, about=ABOUT, sample=X[:1], world=ALONE)


@pytest.mark.proves("TRAIN-12")
def test_it_is_its_formula() -> None:
    student, teacher, heat, alpha = net(0), net(1), 3.0, 0.7
    with torch.no_grad():
        p, q = ((model(X).double() / heat).softmax(-1) for model in (teacher, student))
        expected = alpha * heat**2 * (p * (p.log() - q.log())).sum() + (1 - alpha) * F.cross_entropy(
            student(X).double(), Y, reduction="sum"
        )
    found = objective(lesson(temperature=heat, alpha=alpha), student, teacher)(X, Y)
    torch.testing.assert_close(found.detach().double(), expected, rtol=1e-5, atol=0)


@pytest.mark.proves("TRAIN-12")
def test_a_student_that_is_its_teacher_has_nothing_to_learn_of_it() -> None:
    student = net(0)
    total = objective(lesson(alpha=1.0), student, copy.deepcopy(student))(X, Y)
    total.backward()
    assert abs(float(total.detach())) < 1e-5
    assert max(float(p.grad.abs().max()) for p in student.parameters() if p.grad is not None) < 1e-5


@pytest.mark.proves("TRAIN-12")
def test_without_a_share_of_the_teacher_it_is_the_loss_to_the_bit() -> None:
    one, other = net(0), net(0)
    objective(lesson(alpha=0.0), one, net(1))(X, Y).backward()
    objective(None, other, None)(X, Y).backward()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad)


@pytest.mark.proves("TRAIN-12")
def test_gradients_keep_their_size_for_any_temperature() -> None:
    def norm(heat: float) -> float:
        student = net(0)
        objective(lesson(alpha=1.0, temperature=heat), student, net(1))(X, Y).backward()
        return float(torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None]).norm())

    norms = [norm(heat) for heat in (1.0, 4.0, 16.0)]
    assert norms == pytest.approx([norms[-1]] * 3, rel=0.1)


@pytest.mark.proves("TRAIN-12")
def test_the_teacher_stays_what_it_was() -> None:
    student, teacher = net(0), nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 4))
    before = copy.deepcopy(teacher.state_dict())
    made = objective(lesson(), student, teacher)
    made.train()
    optimizer = torch.optim.SGD(made.parameters(), 0.1)
    first = made(X, Y)
    assert torch.equal(made(X, Y), first), "a teacher in training mode would draw"
    for _ in range(3):
        optimizer.zero_grad()
        made(X, Y).backward()
        optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert not any(name.startswith("teacher") or "_of" in name for name, _ in made.named_parameters())
    assert len(list(made.parameters())) == len(list(student.parameters()))


@pytest.mark.proves("TRAIN-12")
def test_chosen_layers_learn_to_say_the_same() -> None:
    student, teacher = net(0, 6), net(1, 6)
    pairs = [{"student": "1", "teacher": "1", "weight": 2.5}, {"student": "2", "teacher": "2"}]
    found = objective(lesson(alpha=0.0, layer_map=pairs), student, teacher)(X, Y).detach()
    with torch.no_grad():
        plain = F.cross_entropy(student(X), Y, reduction="sum")
        hidden = F.mse_loss(student[:2](X), teacher[:2](X)) * len(X) * 2.5
        ends = F.mse_loss(student(X), teacher(X)) * len(X)
    torch.testing.assert_close(found, plain + hidden + ends, rtol=1e-5, atol=0)


def test_weights_of_classes_weigh_the_lesson_too() -> None:
    student, teacher, weights = net(0), net(1), (1.0, 0.0, 2.0, 0.5)
    found = objective(lesson(alpha=1.0, temperature=1.0), student, teacher, class_weights=weights)(X, Y).detach()
    with torch.no_grad():
        p, q = teacher(X).double().softmax(-1), student(X).double().softmax(-1)
        expected = ((p * (p.log() - q.log())).sum(-1) * torch.tensor(weights).double()[Y]).sum()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


def test_a_teacher_sees_samples_as_in_its_own_run() -> None:
    """Ours are standardised; it learned from values as they stand in the data set."""
    shift, scale, raw = torch.arange(5.0), torch.tensor([1.0, 2.0, 4.0, 0.5, 3.0]), torch.randn(16, 5) * 3
    student, teacher = net(0), net(1)
    ours = Description((5,), 4, ABOUT.classes, steps=(Scaling(shift, scale),))
    made = build_objective(
        lesson(alpha=1.0, temperature=1.0),
        student,
        build_loss(CrossEntropy(), 4, Y),
        taught=Taught(teacher, ABOUT),
        about=ours,
        sample=X[:1],
        world=ALONE,
    )
    scaled = ours.scaling.apply(raw) if ours.scaling is not None else raw
    with torch.no_grad():
        p, q = teacher(raw).double().softmax(-1), student(scaled).double().softmax(-1)
    torch.testing.assert_close(made(scaled, Y).detach().double(), (p * (p.log() - q.log())).sum(), rtol=1e-4, atol=1e-5)


def test_tokens_weigh_what_they_weigh_in_the_loss() -> None:
    torch.manual_seed(0)
    student, teacher = (nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 7)) for _ in range(2))
    ids, about = torch.randint(0, 7, (3, 8)), Description((8,), 7)
    loss = SummedCrossEntropy(CrossEntropy(), None)
    made = build_objective(
        lesson(alpha=0.5), student, loss, taught=Taught(teacher, about), about=about, sample=ids[:1], world=ALONE
    )
    with torch.no_grad():
        p, q = ((model(ids).double() / 2).softmax(-1) for model in (teacher, student))
        expected = 0.5 * 4 * (p * (p.log() - q.log())).sum() + 0.5 * F.cross_entropy(
            student(ids).double().flatten(0, 1), ids.flatten(), reduction="sum"
        )
    torch.testing.assert_close(made(ids, ids).detach().double(), expected, rtol=1e-5, atol=0)


def _heard(said: dict[str, torch.Tensor], name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    said[name] = output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize(
    ("spec", "layer"),
    [
        ({"type": "transformer_encoder", "num_layers": 1, "hidden_size": 8, "num_heads": 2}, "blocks.0"),
        ({"type": "lstm", "hidden_size": 8}, "layers"),
    ],
)
def test_padding_of_short_texts_is_not_compared(spec: dict[str, Any], layer: str) -> None:
    """Against the same models on each text alone, without any padding; also where a layer is as wide as texts are long."""
    vocabulary, length, random = 9, 8, torch.Generator().manual_seed(1)
    kind: TypeAdapter[Model] = TypeAdapter(Model)

    def reader(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return build_model(kind.validate_json(json.dumps(spec)), (length,), 4, text=True, vocabulary=vocabulary).eval()

    student, teacher = reader(0), reader(1)
    texts = [torch.randint(0, vocabulary - 1, (size,), generator=random) for size in (1, 5, length)]
    together = torch.full((3, length), vocabulary - 1)
    for row, ids in zip(together, texts, strict=True):
        row[: len(ids)] = ids
    said: dict[str, torch.Tensor] = {}
    about = Description((length,), 4)
    pairs = [{"student": layer, "teacher": layer}, {"student": "head", "teacher": "head"}]
    made = build_objective(
        lesson(alpha=0.0, layer_map=pairs), student, SummedCrossEntropy(CrossEntropy(), None),
        taught=Taught(teacher, about), about=about, sample=together[:1], world=ALONE,
    )  # fmt: skip
    with torch.no_grad():
        found = made(together, Y[:3]) - F.cross_entropy(student(together), Y[:3], reduction="sum")
        expected = torch.zeros(())
        for model, name in ((student, "ours"), (teacher, "theirs")):
            model.get_submodule(layer).register_forward_hook(partial(_heard, said, name))
        for ids in texts:
            outputs = [model(ids[None]) for model in (student, teacher)]
            expected += F.mse_loss(said["ours"], said["theirs"]) + F.mse_loss(*outputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (Description((6,), 4, ABOUT.classes), r"samples of shape \(6,\), these are \(5,\)"),
        (Description((5,), 3, ABOUT.classes[:3]), "3 classes or tokens apart, here there are 4"),
        (Description((5,), 4, ("b", "a", "c", "d")), "other classes"),
        (Description((5,), 4, ABOUT.classes, ("x",)), "the columns x"),
    ],
)
def test_a_teacher_of_something_else_is_refused(about: Description, message: str) -> None:
    with pytest.raises(SpecProblem, match=message):
        objective(lesson(), net(0), net(1), about=about)


def test_what_cannot_be_taught_is_refused_before_the_first_step() -> None:
    with pytest.raises(SpecProblem, match=r"layer_map\[0\]: 1 gives \(1, 6\), 1 of the teacher \(1, 9\)"):
        objective(lesson(layer_map=[{"student": "1", "teacher": "1"}]), net(0, 6), net(1, 9))
    with pytest.raises(SpecProblem, match=r"layer_map\[0\].teacher: there is no module 'no.such'; there are 0, 1, 2"):
        objective(lesson(layer_map=[{"student": "1", "teacher": "no.such"}]), net(0), net(1))
    with pytest.raises(SpecProblem, match="checkpoint 3 of job_1 is no longer there"):
        objective(lesson(), net(0), None)
    numbers = build_loss(MeanSquaredError(), 4, X)
    with pytest.raises(SpecProblem, match="for classes and tokens"):
        build_objective(lesson(), net(0), numbers, taught=Taught(net(1), ABOUT), about=ABOUT, sample=X[:1], world=ALONE)


def test_a_rank_without_samples_still_touches_every_weight() -> None:
    student = net(0)
    objective(lesson(), student, net(1))(X[:0], Y[:0]).backward()
    assert all(p.grad is not None and not p.grad.any() for p in student.parameters())
