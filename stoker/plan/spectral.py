"""Matrices divided by their largest singular value, on paper: what is read beside what is learned."""

import math
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

from stoker.errors import Finding, SpecError
from stoker.plan.remembered import each
from stoker.plan.tape import Tape
from stoker.spec.regularization import Regularization

OF_MATRICES = ("group_lasso", "orthogonal", "spectral_norm")
"""What has no meaning for vectors."""
PENALTIES = ("l1", "l2", "elastic_net", "group_lasso", "orthogonal", "spectral_norm")


def refuse_idle_penalties(spec: Regularization, tape: Tape) -> None:
    """Raises SpecError for penalties on none of the weights that learn, and for a bound on none of all weights."""
    asked = {name: penalty for name in PENALTIES if (penalty := getattr(spec, name)) is not None}
    findings = [found for name, penalty in asked.items() for found in _idle(name, penalty.pattern, tape)]
    if findings:
        raise SpecError(findings)


def _idle(name: str, pattern: str | None, tape: Tape) -> Iterator[Finding]:
    matrices = pattern is None or name in OF_MATRICES
    weights = each(tape.weights if name == "spectral_norm" else tape.learned)
    names = [weight.name for weight in weights if len(weight.shape) > 1 or not matrices]
    if any(fnmatchcase(known, pattern or "*") for known in names):
        return
    what = "weight of two dimensions or more" if matrices else "weight"
    what += "" if name == "spectral_norm" else " that learns"
    yield Finding(
        pointer=f"/regularization/{name}" + ("" if pattern is None else "/pattern"),
        code="penalty-of-nothing",
        message=f"this model has no {what}" + ("" if pattern is None else f" that {pattern!r} matches"),
        hint=f"it has {', '.join(names[:6])}{' …' if len(names) > 6 else ''}; `*` stands for any characters"
        if names
        else f"remove `regularization.{name}`",
    )


def bound(spec: Regularization, tape: Tape) -> None:
    """Two vectors are kept of each matrix, and what it is divided into until the backward pass; matrices that learn nothing, the
    heads of tasks without weight, are divided too.
    """
    if spec.spectral_norm is None:
        return
    for weight in each([*tape.weights, *tape.buffers]):
        if len(weight.shape) > 1 and fnmatchcase(weight.name, spec.spectral_norm.pattern or "*"):
            module, _, name = weight.name.rpartition(".")
            rows, columns = weight.shape[0], math.prod(weight.shape[1:])
            for vector, size in (("u", rows), ("v", columns)):
                key = f"{module}.parametrizations.{name}.0.{vector}"
                tape.buffers.append(replace(weight, name=key, shape=(size,)))
            tape.keep_more(math.prod(weight.shape), weight.item, per_sample=False)
