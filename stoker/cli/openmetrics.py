"""A job's numbers as OpenMetrics text, which CI systems compare between branches (https://prometheus.io/docs/specs/om/)."""

from collections.abc import Iterator, Mapping

from stoker.cli.words import between
from stoker.client import number
from stoker.views import JobView


def exposition(job: JobView, metrics: Mapping[str, float | str]) -> str:
    """The last value of each metric as one family, the steps and the seconds; no job id, so that runs can be compared."""
    return "".join(f"{line}\n" for line in _lines(job, metrics))


def _lines(job: JobView, metrics: Mapping[str, float | str]) -> Iterator[str]:
    base = {"job": job.name or "", "project": job.project}
    yield "# TYPE stoker_metric gauge"
    yield "# HELP stoker_metric Last value of each metric of the job."
    for key, value in sorted(metrics.items()):
        yield f"stoker_metric{_labels({**base, 'key': key})} {_number(number(value))}"
    yield "# TYPE stoker_steps gauge"
    yield "# HELP stoker_steps Optimizer steps done."
    yield f"stoker_steps{_labels(base)} {job.progress.step}"
    yield "# TYPE stoker_run_seconds gauge"
    yield "# UNIT stoker_run_seconds seconds"
    yield "# HELP stoker_run_seconds Time since the first attempt started, until the end."
    yield f"stoker_run_seconds{_labels(base)} {_number(between(job.started_at, job.finished_at) or 0.0)}"
    yield "# EOF"


def _labels(values: Mapping[str, str]) -> str:
    quoted = (f'{name}="{_escaped(value)}"' for name, value in sorted(values.items()))
    return "{" + ",".join(quoted) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float | None) -> str:
    """As the format spells it: NaN, +Inf, -Inf."""
    if value is None or value != value:
        return "NaN"
    return repr(value) if abs(value) != float("inf") else "+Inf" if value > 0 else "-Inf"
