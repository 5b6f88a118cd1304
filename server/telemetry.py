"""Prometheus metrics of one server process. No label ever carries a job, a key or anything else without bound."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy import func, select
from sqlmodel import Session

from server.attempts.store import ATTEMPTS
from server.jobs.store import JOBS
from server.queue import Hints
from server.workers.store import WORKERS

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Telemetry:
    """Counts requests as they happen and the rest when it is asked."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "stoker_http_request_seconds",
            "Time to answer.",
            ("method", "route", "status"),
            registry=self.registry,
            buckets=(0.005, 0.02, 0.1, 0.5, 2, 10),
        )
        self._jobs = Gauge("stoker_jobs", "Jobs by state.", ("state",), registry=self.registry)
        self._attempts = Gauge(
            "stoker_attempts_live", "Attempts that hold devices, by state.", ("state",), registry=self.registry
        )
        self._ended = Gauge("stoker_attempts_ended", "Ended attempts by reason.", ("reason",), registry=self.registry)
        self._workers = Gauge("stoker_workers", "Workers by state.", ("state",), registry=self.registry)
        self._hints = Gauge("stoker_hints", "Wake-ups by what became of them.", ("result",), registry=self.registry)
        self.ticks = Counter("stoker_scheduler_placements", "Attempts placed.", registry=self.registry)
        self.reaped = Counter("stoker_reaper_attempts", "Attempts ended by the reaper.", registry=self.registry)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._seconds.labels(method if method in _METHODS else "other", route, str(status)).observe(seconds)

    def render(self, session: Session, hints: Hints) -> bytes:
        """The text exposition, with gauges read from the database now."""
        self._set(self._jobs, session.execute(select(JOBS.c.state, func.count()).group_by(JOBS.c.state)))
        live = select(ATTEMPTS.c.state, func.count()).where(ATTEMPTS.c.state != "ended").group_by(ATTEMPTS.c.state)
        self._set(self._attempts, session.execute(live))
        ended = select(ATTEMPTS.c.reason, func.count()).where(ATTEMPTS.c.state == "ended").group_by(ATTEMPTS.c.reason)
        self._set(self._ended, session.execute(ended.order_by(func.count().desc()).limit(50)))
        self._set(self._workers, session.execute(select(WORKERS.c.state, func.count()).group_by(WORKERS.c.state)))
        self._hints.labels("sent").set(hints.sent)
        self._hints.labels("failed").set(hints.failed)
        return generate_latest(self.registry)

    def _set(self, gauge: Gauge, rows: Any) -> None:
        gauge.clear()
        for name, count in rows:
            gauge.labels(str(name)).set(count)
