"""An interpreter that has imported everything and does nothing but fork: one thread, one loop, no computation.

It outlives the worker that started it for a while, so that a restarted one finds it; the agents it forks outlive it.
"""

import gc
import logging
import os
import random
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from worker.agent.run import run_agent
from worker.agent.spawn import ForkSpawner, default_signals, leave, redirect
from worker.host.hint import Hint, parse_hint
from worker.node.warm_socket import MAX_LINE, Answer, parse_ask, peer_user, short_address, warm_directory
from worker.settings import WorkerSettings

FIRST_ATTACH = 60.0
"""Seconds that a new interpreter waits for its worker, at least."""
log = logging.getLogger(__name__)


class WarmServer:
    def __init__(self, settings: WorkerSettings, mark: str, entry: Callable[[Path], int], reseed: Callable[[], None]) -> None:
        """mark: fingerprint of code and settings; entry: the trainer's main; reseed: gives a fork random numbers of its own."""
        self._settings = settings
        self._mark = mark
        self._spawner = ForkSpawner(entry)
        self._reseed = reseed
        self._listener = socket.socket(socket.AF_UNIX)
        self._selector = selectors.DefaultSelector()
        self._attached: set[socket.socket] = set()
        self._alone_since = time.monotonic()
        self._linger = max(FIRST_ATTACH, settings.worker_warm_linger)
        self._leaving = False

    def serve(self) -> None:
        """Until told to quit, or no worker has been attached for the linger time."""
        directory = warm_directory(self._settings)
        with short_address(directory) as address:
            with suppress(FileNotFoundError):
                os.unlink(address)
            self._listener.bind(address)
        self._listener.listen(64)
        self._selector.register(self._listener, selectors.EVENT_READ)
        signal.signal(signal.SIGTERM, self._quit)
        # What is imported never dies; without this the first collection in a fork would copy every page.
        gc.collect()
        gc.freeze()
        log.info("warm, pid %d", os.getpid())
        while not self._leaving and (self._attached or time.monotonic() - self._alone_since < self._linger):
            for key, _ in self._selector.select(timeout=1.0):
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket):
                    self._serve_one(key.fileobj)
            self._reap()
        (directory / "socket").unlink(missing_ok=True)

    def _quit(self, *_: object) -> None:
        self._leaving = True

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        if peer_user(connection) != os.getuid():
            connection.close()
            return
        connection.settimeout(1.0)
        self._selector.register(connection, selectors.EVENT_READ)

    def _serve_one(self, connection: socket.socket) -> None:
        try:
            line = connection.recv(MAX_LINE)
            if line and (ask := parse_ask(line)):
                match ask.op:
                    case "attach":
                        self._attached.add(connection)
                        self._linger = self._settings.worker_warm_linger
                        answer = Answer(ok=True, fingerprint=self._mark, pid=os.getpid())
                    case "quit":
                        self._leaving = True
                        answer = Answer(ok=True)
                    case "launch":
                        answer = self._launch(ask.attempt_id, ask.epoch)
                connection.sendall(answer.model_dump_json().encode() + b"\n")
                return
        except OSError as error:
            log.info("a worker has gone: %s", error)
        self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()
        self._attached.discard(connection)
        self._alone_since = time.monotonic()

    def _launch(self, attempt_id: str, epoch: int) -> Answer:
        try:
            hint = parse_hint(attempt_id, epoch)
            home = self._settings.runs / hint.attempt_id
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            pid = os.fork()
        except (ValueError, OSError) as error:
            return Answer(ok=False, error=str(error))
        if pid == 0:
            self._become_agent(hint, home)
        return Answer(ok=True, pid=pid)

    def _become_agent(self, hint: Hint, home: Path) -> None:
        """In the fork: leaves everything of this server behind and runs the attempt. Does not return."""
        code = 1
        try:
            os.setsid()
            default_signals()
            for key in list(self._selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()
            self._selector.close()
            redirect(home / "agent.log", home / "agent.log")
            random.seed()
            self._reseed()
            code = run_agent(hint.attempt_id, hint.epoch, self._settings, self._spawner)
        except BaseException:
            log.exception("%s: the agent failed", hint.attempt_id)
        finally:
            leave(code)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
