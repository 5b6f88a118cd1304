"""The one task of the worker's queue."""

import logging
from collections.abc import Callable
from typing import Any

from celery import Celery

from worker.host.hint import Hint, parse_hint

WAKE = "stoker.wake"
log = logging.getLogger(__name__)


def register(app: Celery, launch: Callable[[Hint], bool]) -> None:
    """Adds `stoker.wake(attempt_id, epoch)`; `launch` answers whether it started an agent, and may raise OSError."""

    @app.task(name=WAKE, ignore_result=True, shared=False)  # type: ignore[untyped-decorator]  # celery has no types
    def wake(*arguments: Any, **named: Any) -> None:
        """A hint: losing it costs seconds, repeating it nothing, and a wrong one is dropped."""
        try:
            if named:
                raise ValueError("named arguments")
            attempt_id, epoch = arguments
            hint = parse_hint(attempt_id, epoch)
        except ValueError as error:
            log.warning("dropped a wake-up message that is malformed: %s", error)
            return
        try:
            if launch(hint):
                log.info("%s: launched", hint.attempt_id)
        except OSError as error:
            log.error("%s: not launched: %s", hint.attempt_id, error)
