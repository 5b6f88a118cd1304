"""Matrices divided by their largest singular value, on paper: what is read beside what is learned."""

import math
from dataclasses import replace
from fnmatch import fnmatchcase

from stoker.errors import Finding, SpecError
from stoker.plan.remembered import each
from stoker.plan.tape import Tape
from stoker.spec.regularization import Regularization

PENALTIES = ("l1", "l2", "elastic_net", "group_lasso", "orthogonal", "spectral_norm")


def refuse_idle_penalties(spec: Regularization, tape: Tape) -> None:
    """Raises SpecError for patterns that no weight falls to."""
    names = [weight.name for weight in each(tape.weights)] if spec != Regularization() else []
    findings = [
        Finding(
            pointer=f"/regularization/{name}/pattern",
            code="penalty-of-nothing",
            message=f"{penalty.pattern!r} matches no weight of this model",
            hint=f"the model has {', '.join(names[:6])}{' …' if len(names) > 6 else ''}; `*` stands for any characters",
        )
        for name in PENALTIES
        if (penalty := getattr(spec, name)) is not None
        and penalty.pattern is not None
        and not any(fnmatchcase(known, penalty.pattern) for known in names)
    ]
    if findings:
        raise SpecError(findings)


def bound(spec: Regularization, tape: Tape) -> None:
    """Two vectors are kept of each matrix, and what it is divided into until the backward pass."""
    if spec.spectral_norm is None:
        return
    for weight in each(tape.weights):
        if len(weight.shape) > 1 and fnmatchcase(weight.name, spec.spectral_norm.pattern or "*"):
            module, _, name = weight.name.rpartition(".")
            rows, columns = weight.shape[0], math.prod(weight.shape[1:])
            for vector, size in (("u", rows), ("v", columns)):
                key = f"{module}.parametrizations.{name}.0.{vector}"
                tape.buffers.append(replace(weight, name=key, shape=(size,)))
            tape.keep_more(math.prod(weight.shape), weight.item, per_sample=False)
