"""The Markdown summary of a run: verdict, gates, metrics next to a baseline's, differences of the specs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stoker.cli.show import leaves
from stoker.cli.words import between, duration, measure
from stoker.views import JobView, VerdictView

LIMIT = 1 << 20
"""Bytes; GitHub refuses longer summaries."""


def summary(job: JobView, verdict: VerdictView | None, baseline: JobView | None, specs: Sequence[Mapping[str, Any]]) -> str:
    """The text, at most 1 MiB. `specs` are the resolved spec of the job and, with a baseline, of that one."""
    text = "\n".join(_lines(job, verdict, baseline, specs)) + "\n"
    data = text.encode()
    if len(data) <= LIMIT:
        return text
    note = "\n\n(cut at 1 MiB)\n"
    return data[: LIMIT - len(note)].decode(errors="ignore") + note


def _lines(
    job: JobView, verdict: VerdictView | None, baseline: JobView | None, specs: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    mark = "✅" if job.state == "succeeded" and (verdict is None or verdict.passed) else "❌"
    yield f"# {mark} {_cell(job.name or job.id)}: {job.state}"
    yield ""
    took = duration(between(job.started_at, job.finished_at))
    yield f"`{job.id}` · spec `{job.spec_digest[:16]}` · step {job.progress.step:,} · ran {took} · attempts {job.attempt}"
    if job.error is not None:
        yield f"\n**{_cell(job.error.reason)}**: {_cell(job.error.message)}\n\n{_cell(job.error.hint)}"
    if verdict is not None and verdict.gates:
        yield "\n## Gates\n\n| gate | value | result |\n|---|---|---|"
        for gate in verdict.gates:
            yield f"| {_code(gate.expression)} | {measure(gate.value)} | {'pass' if gate.passed else '**fail**'} |"
    if job.metrics:
        yield from _metrics(job, baseline)
    if baseline is not None and len(specs) == 2:
        yield from _difference(specs[0], specs[1])
    if link := job.links.get("self"):
        yield f"\n[job]({link})"


def _metrics(job: JobView, baseline: JobView | None) -> Iterator[str]:
    yield "\n## Metrics\n"
    yield "| metric | value |" + (" baseline | change |" if baseline else "")
    yield "|---|---|" + ("---|---|" if baseline else "")
    for key, value in sorted(job.metrics.items()):
        row = f"| {_cell(key)} | {measure(value)} |"
        if baseline is not None:
            before = baseline.metrics.get(key)
            change = f"{value - before:+.4g}" if isinstance(value, float) and isinstance(before, float) else "–"
            row += f" {measure(before)} | {change} |"
        yield row


def _difference(mine: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    now, before = (dict(leaves(spec.get("spec", spec))) for spec in (mine, other))
    changed = sorted(pointer for pointer in now.keys() | before.keys() if now.get(pointer) != before.get(pointer))
    yield "\n## Difference from the baseline's spec\n"
    if not changed:
        yield "none"
        return
    yield "| key | baseline | this job |\n|---|---|---|"
    for pointer in changed:
        yield f"| {_code(pointer[1:].replace('/', '.'))} | {_cell(before.get(pointer))} | {_cell(now.get(pointer))} |"


def _cell(value: object) -> str:
    """Text that cannot break out of a table cell."""
    text = "–" if value is None else str(value)
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'").replace("\n", " ")


def _code(text: str) -> str:
    """A code span in a table cell; nothing but the bar and the backtick means anything there."""
    return "`" + text.replace("`", "'").replace("|", "\\|").replace("\n", " ") + "`"
