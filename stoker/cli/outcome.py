"""How a job ended, in words and as an exit code. The state decides, never how a stream ended."""

from stoker.cli.terminal import say
from stoker.cli.words import between, duration
from stoker.views import JobView

CODES = {"succeeded": 0, "failed": 1, "cancelled": 5}
GATE_FAILED = 3


def exit_code(job: JobView, passed: bool | None = None) -> int:
    """0 succeeded, 1 failed, 3 a gate failed, 5 cancelled."""
    if job.state == "succeeded" and (passed is False or job.outcome in ("gate_failed", "metrics_missing")):
        return GATE_FAILED
    return CODES.get(job.state, 1)


def sentence(job: JobView) -> str:
    """One line, for the end of a wait."""
    took = duration(between(job.started_at or job.created_at, job.finished_at))
    line = f"{label(job)} {job.state} after {took}"
    if job.error is not None:
        line += f": {job.error.message or job.error.reason}\n  help: {job.error.hint}"
    return line


def label(job: JobView) -> str:
    return f"{job.id} ({job.name})" if job.name else job.id


STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "paused": "magenta"}


def style(state: str) -> str:
    return STYLES.get(state, "white")


def next_step(job: JobView) -> None:
    """What one does with an ended job, on stderr."""
    match job.state:
        case "succeeded":
            say(f"  next: stoker download {job.id}")
        case "failed" | "cancelled":
            say(f"  next: stoker logs {job.id}   (or: stoker retry {job.id})")
        case _:
            say(f"  next: stoker watch {job.id}")
