"""One supervised child: started, watched, started again with a growing pause, and stopped when asked."""

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import DEVNULL, STDOUT
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stoker.cli.stack.files import Process
from stoker.cli.stack.process import birth

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds before the first restart, and at most."""
STEADY = 30.0
"""Seconds of running after which the pause starts small again."""
LOG_LIMIT = 16 << 20
"""Bytes of a log at which a new one begins when the child starts; one old log is kept."""


@dataclass(frozen=True)
class Program:
    """What is started, always the same way."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path
    log: Path
    grace: float
    """Seconds from SIGTERM to SIGKILL."""


class Child:
    """`keep` runs until `stop`; `changed` is called after every start and end."""

    def __init__(self, program: Program, changed: Callable[["Child", str], None]) -> None:
        self.program = program
        self.process: Process | None = None
        self.restarts = 0
        self._changed = changed
        self._stopping = asyncio.Event()
        self._running: asyncio.subprocess.Process | None = None

    async def keep(self) -> None:
        """Start the program and start it again whenever it ends, until `stop`."""
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run()
            if self._stopping.is_set():
                return
            pause = FIRST_PAUSE if time.monotonic() - began > STEADY else pause
            self.restarts += 1
            self._changed(self, f"{self.program.name} {_ending(code)}; starting it again in {pause:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _run(self) -> int:
        log = _open_log(self.program.log)
        try:
            self._running = await asyncio.create_subprocess_exec(
                *self.program.argv,
                env=self.program.env,
                cwd=self.program.cwd,
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                # Its own session: Ctrl-C reaches only the supervisor, which stops children in order.
                start_new_session=True,
            )
        finally:
            os.close(log)
        self.process = Process(self._running.pid, birth(self._running.pid), self.restarts)
        self._changed(self, f"{self.program.name} started (pid {self._running.pid})")
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        return await self._running.wait()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL to the group after the grace time."""
        self._stopping.set()
        if self._running is None:
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._running.wait(), self.program.grace)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._running.pid, signal.SIGKILL)
            await self._running.wait()

    def _signal(self, number: int) -> None:
        if self._running is not None and self._running.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._running.send_signal(number)


def _open_log(path: Path) -> int:
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 16_384))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
