"""`stoker show`."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from stoker.cli import emit, words
from stoker.cli.connection import REFERENCE, connect, resolve
from stoker.cli.outcome import style
from stoker.cli.terminal import out
from stoker.client import Client
from stoker.views import AttemptView, JobView


def show(
    job: Annotated[str, typer.Argument(help=REFERENCE)] = "@last",
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
    for pointer, value in leaves(answer.get("spec", answer)):
        out().print(f"{pointer[1:].replace('/', '.')} = {value!r}", style="bold", end="")
        out().print(f"  ({origins.get(pointer, 'default')})", style="dim")


def leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """JSON pointer and value of each leaf."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{at}/{key}")
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{at}/{index}")
    else:
        yield at, value


def _page(client: Client, job: JobView) -> None:
    out().print(job.id, style="bold", end="  ")
    out().print(job.state, style=style(job.state))
    for name, text in _rows(job):
        out().print(f"  {name:<10} {text}")
    if job.metrics:
        out().print("  metrics", style="bold")
        for key, value in sorted(job.metrics.items()):
            out().print(f"    {key:<32} {words.measure(value)}")
    attempts = client.attempts(job.id)
    if attempts:
        out().print("  attempts", style="bold")
        for attempt in attempts:
            out().print(f"    {_attempt(attempt)}")
    if job.state == "queued":
        out().print(f"  waits: {client.why(job.id).message}", style="yellow")
    if job.error is not None:
        out().print(f"  {job.error.reason}: {job.error.message}", style="red")
        out().print(f"  help: {job.error.hint}")


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
    if job.objective is not None:
        yield "best", f"{job.objective.key} {words.measure(job.objective.best)} at step {job.objective.best_step}"
    yield "resources", ", ".join(f"{k}={v}" for k, v in job.resources.items() if v)
    yield "spec", job.spec_digest[:16]


def _attempt(attempt: AttemptView) -> str:
    took = words.duration(words.between(attempt.started_at, attempt.ended_at))
    resumed = f"  from step {attempt.resumed_from}" if attempt.resumed_from else ""
    reason = f"  {attempt.reason}" if attempt.reason else ""
    return f"#{attempt.number} {attempt.state} on {attempt.worker or '–'}  {took}{resumed}{reason}"
