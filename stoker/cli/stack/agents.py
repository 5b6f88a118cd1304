"""The trainings of a stack that is being taken down: asked to save, so that the next start continues them."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from stoker.cli.stack.files import Process, StackFiles
from stoker.cli.stack.process import is_alive

GRACE = 45.0
"""Seconds that trainings have to save; their own limit is 30."""


def running(files: StackFiles) -> list[Process]:
    """Agents of this stack's worker that are alive, told from later processes of the same number by their birth."""
    return [agent for record in files.root.glob("runs/*/agent.json") for agent in _read(record) if is_alive(agent)]


def _read(record: Path) -> Iterator[Process]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        fields = json.loads(record.read_text())
        yield Process(int(fields["pid"]), str(fields["start"]))


async def preempt(files: StackFiles, grace: float = GRACE) -> int:
    """Tell every agent to save and leave, and wait for it; how many there were. The server must still be up to hear their end."""
    agents = running(files)
    for agent in agents:
        with contextlib.suppress(ProcessLookupError):
            os.kill(agent.pid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace):
            while any(map(is_alive, agents)):
                await asyncio.sleep(0.05)
    return len(agents)
