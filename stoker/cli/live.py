"""Job pages in a terminal: states with their durations, progress and ETA, the objective's curve, the last log lines."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType

from rich.console import Group
from rich.live import Live
from rich.text import Text

from stoker.cli import words
from stoker.cli.outcome import style
from stoker.cli.terminal import err
from stoker.client import Client, number
from stoker.errors import StokerError
from stoker.views import EventView, JobView, WorkerView

REFRESH = 1.0
"""Seconds between two questions for numbers and logs; states come by themselves."""
LOG_LINES = 6


class JobPage:
    """What is known of one job, and how it looks."""

    def __init__(self, client: Client, job: JobView) -> None:
        self.client, self.job = client, job
        self.states: list[tuple[str, datetime]] = []
        self.phase = job.phase
        self.notices: list[str] = []
        self.curve: list[float] = []
        self.key = "train/loss"
        self.logs: list[str] = []
        self.load = ""
        self._asked = 0.0

    def event(self, event: EventView) -> None:
        """Take in what the event says."""
        if event.type == "state":
            self.states.append((str(event.data.get("to", "?")), event.created_at))
        elif event.type == "phase":
            self.phase = str(event.data.get("name") or event.data.get("phase") or "")
        elif event.type == "notice":
            self.notices = [*self.notices, str(event.data.get("message", ""))][-3:]

    def refresh(self, *, now: bool = False) -> None:
        """Ask for numbers when it is time."""
        if now or time.monotonic() - self._asked >= REFRESH:
            self._ask()

    def _ask(self) -> None:
        """Numbers are decoration: when the server is away the page keeps the last ones."""
        try:
            self.job = self.client.job(self.job.id)
            self.phase = self.job.phase or self.phase
            self.key = self.job.objective.key if self.job.objective else self.key
            self._ask_curve()
            self.logs = self.client.logs(self.job.id, tail=LOG_LINES).splitlines()[-LOG_LINES:]
            self.load = devices(self.client.workers(), self.job.id) or self.load
        except StokerError:
            pass
        self._asked = time.monotonic()

    def _ask_curve(self) -> None:
        for key in dict.fromkeys((self.key, "train/loss")):
            series = self.client.metrics(self.job.id, [key], max_points=60).keys.get(key)
            values = [number(v) for v in series.mean] if series else []
            if values:
                self.key, self.curve = key, [v for v in values if v is not None]
                return

    def draw(self) -> Group:
        """The picture of this moment."""
        parts = [self._head(), self._timeline(), self._progress()]
        if self.curve:
            best = self.job.objective.best if self.job.objective and self.job.objective.key == self.key else None
            tail = f"  last {words.measure(self.curve[-1])}" + (f"  best {words.measure(best)}" if best is not None else "")
            parts.append(Text.assemble((f"{self.key}  ", "bold"), (words.sparkline(self.curve), "cyan"), tail))
        if self.load and self.job.finished_at is None:
            parts.append(Text(self.load, style="dim"))
        parts += [Text(f"! {line}", style="yellow") for line in self.notices]
        parts += [Text(f"  {line}", style="dim", overflow="ellipsis", no_wrap=True) for line in self.logs]
        return Group(*parts)

    def _head(self) -> Text:
        name = f"{self.job.name}  " if self.job.name else ""
        return Text.assemble((name, "bold"), (self.job.id, "dim"))

    def _timeline(self) -> Text:
        """Each state with the time spent in it."""
        line = Text()
        for index, (state, since) in enumerate(self.states):
            until = self.states[index + 1][1] if index + 1 < len(self.states) else self.job.finished_at or datetime.now(UTC)
            seconds = max(0.0, (until - since).total_seconds())
            took = "" if state in ("succeeded", "failed", "cancelled") else f" {words.duration(seconds)}"
            line.append(f"{state}{took}", style=style(state)).append("  ›  " if index + 1 < len(self.states) else "")
        if self.phase and self.job.finished_at is None:
            line.append(f"  {self.phase}", style="dim")
        return line

    def _progress(self) -> Text:
        now = self.job.progress
        share = 1.0 if self.job.state == "succeeded" else now.fraction
        steps = f"step {now.step:,}" + (f"/{now.total_steps:,}" if now.total_steps else "")
        left = f"  {words.duration(now.eta_seconds)} left" if now.eta_seconds is not None and self.job.finished_at is None else ""
        percent = f" {share:4.0%} " if share is not None else " "
        return Text.assemble((words.bar(share, 32), "green"), percent, steps, (left, "dim"))


def devices(workers: Sequence[WorkerView], job_id: str) -> str:
    """How busy the machine of a job is, `local  CPU 51%  memory 1.2 GiB  GPU 0 97%`; nothing while it has none."""
    for worker in workers:
        if job_id in worker.jobs:
            return "  ".join([worker.name, *(_load(name, value) for name, value in sorted(worker.load.items()))])
    return ""


def _load(name: str, value: float) -> str:
    what, _, unit = name.replace("_used", "").rpartition("_")
    shown = {
        "percent": f"{value:.0f}%",
        "utilization": f"{value:.0f}%",
        "bytes": words.size(value),
        "watts": f"{value:.0f} W",
        "celsius": f"{value:.0f} °C",
    }
    label = what.replace("_", " ").replace("cpu", "CPU").replace("gpu", "GPU")
    return f"{label} {shown[unit]}" if unit in shown else f"{name} {value:g}"


class LiveView:
    """Pages drawn on stderr while it is open; their last picture stays."""

    def __init__(self, client: Client, jobs: Sequence[JobView]) -> None:
        self._pages = {job.id: JobPage(client, job) for job in jobs}
        self._live = Live(self._draw(), console=err(), auto_refresh=False)
        self._drawn = 0.0

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            for page in self._pages.values():
                page.refresh(now=True)
        self._live.update(self._draw(), refresh=True)
        self._live.stop()

    def event(self, job_id: str, event: EventView) -> None:
        self._pages[job_id].event(event)

    def tick(self) -> None:
        """Draw, at most ten times a second, with new numbers when it is time for them."""
        if time.monotonic() - self._drawn < 0.1:
            return
        for page in self._pages.values():
            page.refresh()
        self._live.update(self._draw(), refresh=True)
        self._drawn = time.monotonic()

    def _draw(self) -> Group:
        pages = [page.draw() for page in self._pages.values()]
        return Group(*(part for page in pages for part in (page, Text())))
