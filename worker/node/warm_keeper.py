"""Keeps one warm interpreter running for this node: finds it, starts it, replaces one of older code."""

import logging
import sys
import time

from worker.host.detached import Detached
from worker.node.fingerprint import fingerprint
from worker.node.warm_socket import WarmConnection, warm_directory
from worker.settings import WorkerSettings

RETRY = 30.0
"""Seconds before another is started after one did not live."""
SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Keeps numpy, scipy and pyarrow from starting threads when they are imported: a process with threads cannot be forked safely."""
log = logging.getLogger(__name__)


class WarmKeeper:
    """Called from one thread, often; each call is short."""

    def __init__(self, settings: WorkerSettings, command: tuple[str, ...] = (sys.executable, "-m", "worker.warm")) -> None:
        self._settings = settings
        self._command = command
        self._mark = fingerprint(settings)
        self._attached: WarmConnection | None = None
        self._process: Detached | None = None
        self._not_before = 0.0

    @property
    def ready(self) -> bool:
        return self._attached is not None

    def look(self) -> bool:
        """Does what is next to have a warm interpreter; answers whether there is one now."""
        if not self._settings.worker_warm:
            return False
        if self._attached is not None and not self._attached.open():
            log.warning("the warm interpreter has gone")
            self._attached.close()
            self._attached = None
        if self._attached is None and not self._find():
            self._start()
        return self.ready

    def close(self) -> None:
        """Lets go of it; it ends by itself when no other worker comes."""
        if self._attached is not None:
            self._attached.close()
            self._attached = None

    def _find(self) -> bool:
        """Whether one is there; one of other code or settings is told to leave."""
        try:
            connection = WarmConnection(self._settings)
        except OSError:
            return False
        try:
            if connection.ask("attach").fingerprint == self._mark:
                self._attached = connection
                return True
            connection.ask("quit")
        except OSError as error:
            log.info("warm interpreter: %s", error)
        connection.close()
        return False

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        if time.monotonic() < self._not_before:
            return
        self._not_before = time.monotonic() + (RETRY if self._process and self._process.code else 1.0)
        self._process = Detached(self._command, warm_directory(self._settings) / "log", SINGLE_THREADED)
