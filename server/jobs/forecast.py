"""What a job's plan contributes to its row and view, worked out once for specs that differ in nothing that a plan reads."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from server.db import Encoded, to_json, utcnow
from server.jobs import store
from server.jobs.views import whole_view
from stoker.document.memo import Memo
from stoker.document.resolve import Resolved
from stoker.document.sections import Recent
from stoker.errors import Finding
from stoker.facts import DatasetFacts
from stoker.plan import Needs, Plan, needs, plan, plan_without_text, with_text
from stoker.spec import JobSpec
from stoker.spec.distributed import Auto

FRESH: dict[str, Any] = {c.name: None for c in store.JOBS.c} | {
    "kind": "train",
    "state": "queued",
    "desired": "run",
    "phase": "waiting_for_devices",
    "epoch": 0,
    "start_epoch": 0,
    "attempts": 0,
    "counted_failures": 0,
    "infra_failures": 0,
    "gates": [],
    "metrics": {},
    "last_event": 1,
    "version": 1,
}
"""What the row of every new job holds."""
_UNNAMED = {
    "id": "",
    "project": "",
    "priority": 0,
    "labels": {},
    "spec_digest": "",
    "created_at": utcnow(),
    "queued_at": utcnow(),
}


def encoded(value: Any) -> Any:
    """The value of a column, JSON documents as text (`Any`: columns have many types)."""
    if isinstance(value, Needs):
        value = value.document()
    return Encoded(to_json(value)) if isinstance(value, dict | list) else value


@dataclass(frozen=True)
class Forecast:
    """A plan and what follows from it."""

    plan: Plan
    columns: dict[str, Any]
    """plan, needs, objective and progress of the job's row."""
    texts: dict[str, Encoded]
    """The same as JSON."""
    view: dict[str, Any]
    """A new job's view as JSON data, without what the job is called."""
    warnings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Outline:
    """The forecast of specs whose text is not known yet: its length is part of the size of a checkpoint."""

    forecast: Forecast
    sized: Recent[int, Forecast] = field(default_factory=Recent)
    """By the length of the text."""


class Forecasts:
    """Remembers forecasts by the fields that they were made from. Not for several threads at a time."""

    def __init__(self) -> None:
        self._outline = Memo(_outline)

    def of(self, resolved: Resolved, facts: DatasetFacts, teacher: JobSpec | None) -> Forecast:
        """`teacher`: the job whose model teaches. Raises SpecError for what no machine will ever hold."""
        spec, sections = resolved.spec, resolved.sections
        if sections is None or teacher is not None or isinstance(spec.distributed, Auto):
            return _forecast(spec, plan(spec, facts, teacher=teacher))
        outline, length = self._outline(sections), sections.indented
        return outline.sized.recall(length) or outline.sized.keep(length, _sized(outline.forecast, length))


def _outline(spec: JobSpec, facts: DatasetFacts | None) -> _Outline:
    assert facts is not None, "a job is planned with the facts of its data set"
    made, _ = plan_without_text(spec, facts)
    return _Outline(_forecast(spec, made))


def _forecast(spec: JobSpec, predicted: Plan) -> Forecast:
    plain = predicted.model_dump(mode="json")
    columns = {
        "plan": plain,
        "needs": needs(spec, predicted),
        "objective": {"key": spec.checkpoint.monitor, "mode": _mode(spec)},
        "progress": {"step": 0, "total_steps": plain["steps"]["total"]},
    }
    texts = {name: encoded(value) for name, value in columns.items()}
    view = whole_view(SimpleNamespace(**FRESH | columns | _UNNAMED)).model_dump(mode="json")
    return Forecast(predicted, columns, texts, view, _tight(spec, predicted))


def _sized(forecast: Forecast, length: int) -> Forecast:
    predicted = with_text(forecast.plan, length)
    plain = predicted.model_dump(mode="json")
    return replace(
        forecast,
        plan=predicted,
        columns={**forecast.columns, "plan": plain},
        texts={**forecast.texts, "plan": Encoded(to_json(plain))},
        view={**forecast.view, "plan": plain},
    )


def _tight(spec: JobSpec, predicted: Plan) -> tuple[Finding, ...]:
    """A warning where the job reserves less memory than the plan predicts: jobs are placed by what they reserve."""
    reserved = spec.resources.memory_gb
    if reserved is None or predicted.fits is not False:
        return ()
    each = predicted.memory.total_bytes / spec.distributed.nodes / 2**30
    message = f"a node's part of the run is predicted to take {each:.2f} GiB, and {reserved:g} are reserved"
    hint = "reserve more or leave it out; `stoker plan` shows what would take less"
    return (Finding(pointer="/resources/memory_gb", code="reserves-too-little", message=message, hint=hint, severity="warning"),)


def _mode(spec: JobSpec) -> str:
    """Direction of the monitored metric: what the spec says, else what the metric says; losses are minimized."""
    if spec.checkpoint.mode is not None:
        return spec.checkpoint.mode
    name = spec.checkpoint.monitor.partition("/")[2]
    for metric in spec.evaluation.metrics or ():
        if metric.key == name:
            return metric.mode
    return "min"
