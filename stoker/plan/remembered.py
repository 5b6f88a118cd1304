"""What the optimizer keeps of each weight from step to step."""

from dataclasses import replace

from stoker.errors import Finding, SpecError
from stoker.plan.tape import FP32, Tape, Weight
from stoker.spec import JobSpec


def each(weights: list[Weight]) -> list[Weight]:
    """Equal weights one by one, by their own names."""
    return [
        replace(weight, name=weight.name.replace("{}", str(index)), copies=1)
        for weight in weights
        for index in range(weight.copies)
    ]


def remembered(spec: JobSpec, tape: Tape) -> list[Weight]:
    """Tensors named `<weight>.<kind>`; those without dimension are a float32."""
    optimizer = spec.optimizer
    weights = each(tape.learned) if optimizer.asks_names else tape.learned
    treatments = optimizer.treatments((weight.name, weight.shape) for weight in weights)
    return [
        replace(weight, name=f"{weight.name}.{kind}", shape=shape, item=weight.item if shape else FP32)
        for weight, treatment in zip(weights, treatments, strict=True)
        for kind, shape in optimizer.remembered(weight.shape, treatment).items()
    ]


def refuse_idle_groups(spec: JobSpec, tape: Tape) -> None:
    """Raises SpecError for patterns that no weight falls to."""
    groups = spec.optimizer.param_groups
    if not groups:
        return
    names = [weight.name for weight in each(tape.learned)]
    findings = [
        Finding(
            pointer=f"/optimizer/param_groups/{index}/pattern",
            code="param-group-empty",
            message=f"{groups[index].pattern!r} matches no weight of this model that an earlier pattern leaves",
            hint=f"the model has {_some(names)}; `*` stands for any characters",
        )
        for index in spec.optimizer.idle_groups(names)
    ]
    if findings:
        raise SpecError(findings)


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 7 else ", ".join([*names[:3], "…", *names[-3:]])
