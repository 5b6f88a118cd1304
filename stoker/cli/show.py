"""`stoker show`."""

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

from stoker.cli import emit, words
from stoker.cli.connection import Reference, connect, resolve
from stoker.cli.outcome import style
from stoker.cli.terminal import out
from stoker.client import Client
from stoker.views import AttemptView, JobView

LONG = 8
"""Entries of a list beyond which only its ends are shown."""


def show(
    job: Reference = "@last",
    spec: Annotated[bool, typer.Option("--spec", help="The spec in full, with the origin of each value.")] = False,
    fields: emit.Fields = None,
) -> None:
    """Show one job."""
    with connect() as client:
        found = resolve(client, job)
        if spec:
            emit.one(answer := client.spec(found.id, resolved=True), lambda: _spec(answer), fields=fields)
        else:
            emit.one(found, lambda: _page(client, found), fields=fields)


def _spec(answer: dict[str, Any]) -> None:
    origins = answer.get("origins", {})
    for pointer, value in leaves(answer.get("spec", answer), whole_lists=True):
        origin = origins.get(pointer) or origins.get(f"{pointer}/0") or "default"
        out().print(f"{pointer[1:].replace('/', '.')} = {_value(value)}", style="bold", end="")
        out().print(f"  ({origin})", style="dim")


def _value(value: Any) -> str:
    """As JSON; a long list by its ends."""
    if isinstance(value, list) and len(value) > LONG:
        ends = ", ".join(json.dumps(v, ensure_ascii=False) for v in (value[0], value[1], value[-1]))
        return f"[{', … '.join(ends.rsplit(', ', 1))}]  {len(value)} entries"
    return json.dumps(value, ensure_ascii=False)


def leaves(value: Any, at: str = "", *, whole_lists: bool = False) -> Iterator[tuple[str, Any]]:
    """JSON pointer and value of each leaf; with `whole_lists` a list of plain values is one."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{at}/{key}", whole_lists=whole_lists)
    elif isinstance(value, list) and value and not (whole_lists and not any(isinstance(v, (dict, list)) for v in value)):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{at}/{index}", whole_lists=whole_lists)
    else:
        yield at, value


def _page(client: Client, job: JobView) -> None:
    waits = client.why(job.id).message if job.state == "queued" else None
    draw(out(), job, client.attempts(job.id), waits, lineage(client.spec(job.id, resolved=True).get("spec", {})))


def lineage(spec: dict[str, Any]) -> str | None:
    """Where a job's weights come from; None for a job that starts from nothing."""
    start = spec.get("initialization", {}).get("start", {})
    resumed = spec.get("checkpoint", {}).get("resume_from")
    if resumed:
        return f"goes on from step {resumed['checkpoint']} of {resumed['job']}"
    match start.get("type"):
        case "warm":
            return f"weights of step {start['checkpoint']['checkpoint']} of {start['checkpoint']['job']}"
        case "pretrained":
            return f"weights of the data set {start['source']}"
        case _:
            return None


def draw(
    console: Console, job: JobView, attempts: Sequence[AttemptView], waits: str | None = None, begins: str | None = None
) -> None:
    """The job's page; `waits` says why it has not started, `begins` what it starts from."""
    console.print(job.id, style="bold", end="  ")
    console.print(job.state, style=style(job.state))
    for name, text in _rows(job):
        console.print(f"  {name:<10} {text}")
    if begins is not None:
        console.print(f"  {'starts':<10} {begins}")
    if job.metrics:
        console.print("  metrics", style="bold")
        for key, value in sorted(job.metrics.items()):
            console.print(f"    {key:<32} {words.measure(value)}")
    if attempts:
        console.print("  attempts", style="bold")
        for attempt in attempts:
            console.print(f"    {_attempt(attempt)}")
    if waits is not None:
        console.print(f"  waits: {waits}", style="yellow")
    if job.error is not None:
        console.print(f"  {job.error.reason}: {job.error.message}", style="red")
        console.print(f"  help: {job.error.hint}")


def _rows(job: JobView) -> Iterator[tuple[str, str]]:
    now, ran = job.progress, words.between(job.started_at, job.finished_at)
    yield "name", job.name or "–"
    yield "project", job.project
    if job.labels:
        yield "labels", ", ".join(f"{k}={v}" for k, v in sorted(job.labels.items()))
    yield "outcome", job.outcome or job.phase or "–"
    yield "created", f"{job.created_at:%Y-%m-%d %H:%M:%S} UTC ({words.age(job.created_at)} ago)"
    yield "ran", words.duration(ran)
    yield "progress", f"step {now.step:,}" + (f" of {now.total_steps:,}" if now.total_steps else "")
    if job.objective is not None and job.objective.best is not None:
        yield "best", f"{job.objective.key} {words.measure(job.objective.best)} at step {job.objective.best_step}"
    yield "resources", _resources(job.resources)
    yield "spec", job.spec_digest[:16]


def _resources(needs: dict[str, Any]) -> str:
    parts = [str(needs.get("device") or "any device")]
    for name, unit in (("nodes", "node"), ("ranks", "rank"), ("cpus", "CPU"), ("gpus", "GPU")):
        if (count := needs.get(name)) and (name != "nodes" or count > 1):
            parts.append(f"{count} {unit}{'' if count == 1 else 's'}")
    if needs.get("memory_bytes"):
        parts.append(words.size(needs["memory_bytes"]))
    if needs.get("time_limit_seconds"):
        parts.append(f"at most {words.duration(needs['time_limit_seconds'])}")
    return ", ".join(parts)


def _attempt(attempt: AttemptView) -> str:
    took = words.duration(words.between(attempt.started_at, attempt.ended_at))
    resumed = f"  from step {attempt.resumed_from}" if attempt.resumed_from else ""
    reason = f"  {attempt.reason}" if attempt.reason else ""
    where = ", ".join(node.worker for node in attempt.nodes) or attempt.worker or "–"
    return f"#{attempt.number} {attempt.state} on {where}  {took}{resumed}{reason}"
