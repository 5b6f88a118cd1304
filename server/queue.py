"""Wake-ups to workers through Celery, sent after the commit from a thread of its own. Losing one costs latency only.

A broker that is down or silent can delay nobody but this thread: its connection has short socket time-outs, nothing is
retried, and when the line is full the oldest wake-up is dropped, which the sweeper sends again.
"""

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass

from celery import Celery

log = logging.getLogger(__name__)

TASK = "stoker.wake"
_EXPIRES = 3600
"""Seconds after which a worker ignores a wake-up."""
_LINE = 10_000
"""Wake-ups that may wait to be sent."""
_QUIET = 30.0
"""Seconds between two log lines about the same trouble."""


@dataclass(frozen=True)
class Hint:
    """Start an attempt: what a worker is told."""

    worker: str
    attempt_id: str
    epoch: int


def producer(url: str) -> Celery:
    """A Celery app that only sends."""
    app = Celery("stoker-server", broker=url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        broker_connection_retry=False,
        broker_connection_max_retries=0,
        broker_pool_limit=1,
        broker_connection_timeout=2,
        broker_transport_options={
            "socket_timeout": 2,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "retry_on_timeout": False,
            "max_retries": 0,
            "interval_start": 0,
            "interval_step": 0,
            "interval_max": 0,
            "visibility_timeout": 120,
            "global_keyprefix": "stoker:",
        },
    )
    return app


class Hints:
    """The line of wake-ups and the thread that sends them. Without a broker, workers learn of attempts by heartbeat."""

    def __init__(self, url: str) -> None:
        self._app = producer(url) if url else None
        self._line: deque[Hint | None] = deque(maxlen=_LINE)
        self._ready = threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._silent_until = 0.0
        self.sent = 0
        self.failed = 0
        self.last_sent_at: float | None = None
        """Monotonic seconds."""

    def open(self) -> None:
        if self._app is not None:
            self._thread = threading.Thread(target=self._send_forever, name="hints", daemon=True)
            self._thread.start()

    def close(self) -> None:
        if self._thread is not None:
            self._line.append(None)
            self._ready.release()
            self._thread.join(timeout=5)

    def send(self, hint: Hint) -> None:
        """Put a wake-up on the line; never waits. Any thread."""
        if self._app is not None:
            self._line.append(hint)
            self._ready.release()

    def _send_forever(self) -> None:
        while True:
            self._ready.acquire()
            try:
                hint = self._line.popleft()
            except IndexError:  # a full line dropped its oldest
                continue
            if hint is None:
                return
            self._send(hint)

    def _send(self, hint: Hint) -> None:
        assert self._app is not None
        try:
            self._app.send_task(
                TASK,
                args=[hint.attempt_id, hint.epoch],
                queue=f"stoker.{hint.worker}",
                retry=False,
                ignore_result=True,
                expires=_EXPIRES,
            )
        except Exception as error:
            self.failed += 1
            self._complain(error)
        else:
            self.sent += 1
            self.last_sent_at = time.monotonic()

    def _complain(self, error: Exception) -> None:
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + _QUIET
            log.warning("broker does not take wake-ups (%s); workers will find their attempts by heartbeat", type(error).__name__)
