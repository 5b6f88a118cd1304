"""Gates: requirements on final metrics, `validation/accuracy>=0.95`, judged when a job has ended."""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from server.errors import problem
from stoker.document.strict_json import JsonValue
from stoker.errors import Finding
from stoker.status import TERMINAL
from stoker.views import GateView, VerdictView

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}
_GATE = re.compile(
    r"\s*([a-z]+/[A-Za-z0-9_@.-]{1,96})\s*(>=|<=|==|>|<)\s*([+-]?[0-9.]{1,40}(?:[eE][+-]?[0-9]{1,3})?)\s*", re.ASCII
)


@dataclass(frozen=True)
class Gate:
    expression: str
    key: str
    op: str
    threshold: float

    def judge(self, metrics: Mapping[str, JsonValue]) -> GateView:
        value = metrics.get(self.key)
        number = float(value) if isinstance(value, int | float | str) else None
        passed = number is not None and not math.isnan(number) and OPERATORS[self.op](number, self.threshold)
        return GateView(
            expression=self.expression, key=self.key, op=self.op, threshold=self.threshold, value=value, passed=passed
        )


def parse(expression: str) -> Gate:
    """Raises 422 `gate_invalid`."""
    matched = _GATE.fullmatch(expression) if len(expression) <= 256 else None
    try:
        threshold = float(matched[3]) if matched else math.nan
    except ValueError:
        threshold = math.nan
    if matched is None or not math.isfinite(threshold):
        hint = "METRIC OP NUMBER, such as validation/accuracy>=0.95; OP is one of >= <= > < =="
        error = Finding(pointer="/require", code="gate-invalid", message="not a comparison of a metric with a number", hint=hint)
        raise problem(422, "gate_invalid", "A gate cannot be read.", errors=[error])
    return Gate(expression.strip(), matched[1], matched[2], threshold)


def verdict(job_id: str, state: str, metrics: Mapping[str, JsonValue], expressions: Sequence[str]) -> VerdictView:
    """Whether the job met its gates: it succeeded and each gate passed. None while it runs."""
    gates = [parse(e).judge(metrics) for e in expressions]
    passed = (state == "succeeded" and all(g.passed for g in gates)) if state in TERMINAL else None
    return VerdictView(job_id=job_id, state=state, passed=passed, gates=gates)


def outcome(reason: str, metrics: Mapping[str, JsonValue], expressions: Sequence[str]) -> str:
    """The outcome of a job that succeeded."""
    gates = [parse(e).judge(metrics) for e in expressions]
    if any(g.value is None for g in gates):
        return "metrics_missing"
    if not all(g.passed for g in gates):
        return "gate_failed"
    return "early_stopped" if reason == "early_stopped" else "completed"
