"""What the optimizer keeps of each weight from step to step."""

from dataclasses import replace

from stoker.errors import Finding, SpecError
from stoker.plan.tape import FP32, Tape, Weight
from stoker.spec import JobSpec
from stoker.spec.optimizer import Optimizer
from stoker.spec.task import Generation


def each(weights: list[Weight]) -> list[Weight]:
    """Equal weights one by one, by their own names."""
    return [
        replace(weight, name=weight.name.replace("{}", str(index)), copies=1)
        for weight in weights
        for index in range(weight.copies)
    ]


def remembered(spec: JobSpec, tape: Tape) -> list[Weight]:
    """Tensors named `<weight>.<kind>`; those without dimension are a float32."""
    return [kept for optimizer, within in moved(spec) for kept in _remembered(optimizer, within, tape)]


def moved(spec: JobSpec) -> list[tuple[Optimizer, str]]:
    """Each optimizer, and what the names of the weights that it moves begin with; it knows them by what follows."""
    if not isinstance(spec.task, Generation):
        return [(spec.optimizer, "")]
    return [(spec.optimizer, "generator."), (spec.task.discriminator_optimizer or spec.optimizer, "discriminator.")]


def _remembered(optimizer: Optimizer, within: str, tape: Tape) -> list[Weight]:
    own = [weight for weight in tape.learned if weight.name.startswith(within)]
    weights = each(own) if optimizer.asks_names else own
    treatments = optimizer.treatments((weight.name.removeprefix(within), weight.shape) for weight in weights)
    return [
        Weight(f"{weight.name}.{kind}", shape, weight.part, weight.copies, weight.item if shape else FP32, weight.places)
        for weight, treatment in zip(weights, treatments, strict=True)
        for kind, shape in optimizer.remembered(weight.shape, treatment).items()
    ]


def refuse_idle_groups(spec: JobSpec, tape: Tape) -> None:
    """Raises SpecError for patterns that no weight falls to."""
    findings = [
        found
        for (optimizer, within), at in zip(moved(spec), PLACES, strict=False)
        for found in _idle(optimizer, within, tape, at)
    ]
    if findings:
        raise SpecError(findings)


PLACES = ("/optimizer", "/task/discriminator_optimizer")
"""Where the spec has the optimizers, in their order."""


def _idle(optimizer: Optimizer, within: str, tape: Tape, at: str) -> list[Finding]:
    groups = optimizer.param_groups
    names = [w.name.removeprefix(within) for w in each(tape.learned) if w.name.startswith(within)] if groups else []
    return [
        Finding(
            pointer=f"{at}/param_groups/{index}/pattern",
            code="param-group-empty",
            message=f"{groups[index].pattern!r} matches no weight of this model that an earlier pattern leaves",
            hint=f"the model has {_some(names)}; `*` stands for any characters",
        )
        for index in optimizer.idle_groups(names)
    ]


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 7 else ", ".join([*names[:3], "…", *names[-3:]])
