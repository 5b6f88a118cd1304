"""Starts the agent of an attempt, once: forked from the warm interpreter, or as a program of its own."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from worker.host.detached import Detached
from worker.host.hint import Hint
from worker.host.records import has_ended, read_agent
from worker.node.warm_socket import WarmConnection
from worker.settings import WorkerSettings

TRIES = 3
"""Launches of one attempt and epoch on this node; further ones wait for the server to place it again."""
log = logging.getLogger(__name__)


class Launcher:
    """Safe to call from several threads and processes."""

    def __init__(self, settings: WorkerSettings, patience: float, on_launch: Callable[[], None] = lambda: None) -> None:
        """patience: seconds that a launched agent has to show itself before it may be launched again."""
        self._settings = settings
        self._patience = patience
        self._on_launch = on_launch
        self._children: list[Detached] = []
        self._lock = threading.Lock()

    def launch(self, hint: Hint) -> bool:
        """Answers whether an agent was started now. Raises OSError when none could be."""
        home = self._settings.runs / hint.attempt_id
        if has_ended(home) or not self._mark(home, hint.epoch):
            return False
        if not self._warm(hint):
            self._fresh(hint, home)
        self._on_launch()
        return True

    def _mark(self, home: Path, epoch: int) -> bool:
        """Takes the right to launch: a file that only one caller can create."""
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(TRIES):
            path = home / f"launch-{epoch}-{number}"
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                return True
            except FileExistsError:
                if self._may_live(home, path, epoch):
                    return False
        return False

    def _may_live(self, home: Path, marker: Path, epoch: int) -> bool:
        """Whether an agent launched before runs, or may still be on its way."""
        if time.time() - marker.stat().st_mtime < self._patience:
            return True
        agent = read_agent(home)
        return agent is not None and (agent.epoch > epoch or agent.alive())

    def _warm(self, hint: Hint) -> bool:
        if not self._settings.worker_warm:
            return False
        try:
            connection = WarmConnection(self._settings)
        except OSError:
            return False
        try:
            answer = connection.ask("launch", attempt_id=hint.attempt_id, epoch=hint.epoch)
        except OSError as error:
            # It may have forked before it went; the workspace's lock keeps a second agent out.
            log.warning("warm launch: %s", error)
            return False
        finally:
            connection.close()
        return answer.ok

    def _fresh(self, hint: Hint, home: Path) -> None:
        command = [sys.executable, "-m", "worker.agent", hint.attempt_id, str(hint.epoch)]
        child = Detached(command, home / "agent.log", {})
        with self._lock:
            # Polling reaps those that have ended.
            self._children = [running for running in self._children if running.poll() is None] + [child]
