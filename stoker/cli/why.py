"""`stoker why`."""

from typing import Any

from stoker.cli import emit, words
from stoker.cli.connection import Reference, connect, resolve
from stoker.cli.outcome import label
from stoker.cli.terminal import out
from stoker.views import JobView, WhyView

BACKENDS = ("horovod",)
"""What a worker's image has or has not, with no amount."""


def why(job: Reference = "@last", fields: emit.Fields = None) -> None:
    """Say why a job waits: its place in the queue, and what each worker lacks."""
    with connect() as client:
        found = resolve(client, job)
        answer = client.why(found.id)
    emit.one(answer, lambda: _page(found, answer), fields=fields)


def _page(job: JobView, answer: WhyView) -> None:
    say = out().print
    say(f"{label(job)} {answer.state}: {answer.message}")
    if answer.position is not None:
        ahead = f", after {', '.join(answer.ahead)}" if answer.ahead else ""
        say(f"  place   {answer.position}{ahead}")
    if answer.needs and answer.position is not None:
        say(f"  needs   {_amounts(answer.needs)}")
    for worker in answer.workers:
        missing = _amounts(worker.get("missing") or {})
        state = f"lacks {missing}" if missing else "has room" if worker.get("available", True) else "takes no jobs"
        say(f"  {worker.get('name', '?')}: {state}; free {_amounts(worker.get('free') or {}) or 'nothing'}")


def _amounts(values: dict[str, Any]) -> str:
    """`2 cpus, 479.4 MiB`."""
    return ", ".join(
        words.size(v) if name == "memory_bytes" else name if name in BACKENDS else f"{v} {name}"
        for name, v in values.items()
        if name in ("ranks", "cpus", "gpus", "tpus", "memory_bytes", *BACKENDS) and v
    )
