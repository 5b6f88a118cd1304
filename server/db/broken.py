"""A database file that could not be flushed is not written to again by this process.

After a failed fsync the kernel may have dropped the pages and says nothing the next time, so what this process believes to be
stored may not be. It answers 503, then ends; its supervisor starts it again and SQLite recovers from its log.
"""

import logging
import os
import sqlite3
import threading
from collections.abc import Callable

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

log = logging.getLogger(__name__)
EXIT_CODE = 70
DELAY = 0.5
"""Seconds in which the answers that wait are still sent."""
_FATAL = frozenset(
    {
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_DIR_FSYNC,
        sqlite3.SQLITE_IOERR_TRUNCATE,
        sqlite3.SQLITE_IOERR_CLOSE,
    }
)


def is_fatal(error: BaseException | None) -> bool:
    """Whether SQLite says that a write or a flush failed for another reason than a full disk."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) in _FATAL


def _exit() -> None:
    os._exit(EXIT_CODE)


def watch(engine: Engine, end: Callable[[], None] = _exit) -> None:
    """End this process soon after such an error."""

    @event.listens_for(engine, "handle_error")
    def _seen(context: ExceptionContext) -> None:
        if is_fatal(context.original_exception):
            log.critical("the database file could not be written or flushed; this process ends so that it is recovered")
            timer = threading.Timer(DELAY, end)
            timer.daemon = True
            timer.start()
