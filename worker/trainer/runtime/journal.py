"""The run's voice: one JSON line per event in the rank's own file, and the same for people on standard output.

Rank 0 speaks; others only write their end and, the first of each further node, what was saved: its agent stores what is there.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from stoker.events import Artifact, Event, Finished, Metrics, Notice, Phase, Saved, Started
from stoker.text import counted
from worker.trainer.runtime.heartbeat import Heartbeat


class Journal:
    def __init__(self, home: Path, rank: int) -> None:
        self._lead, self._first = rank == 0, os.environ.get("LOCAL_RANK", "0") == "0"
        self.heartbeat = Heartbeat(home, rank)
        """Every rank's; the agent watches it."""
        path = home / f"events-rank{rank}.jsonl"
        torn = path.exists() and not path.read_bytes().endswith(b"\n")
        self.listeners: list[Callable[[Event], None]] = []
        """Called with everything the first rank says, once it is written."""
        self._file = path.open("a", buffering=1, encoding="utf-8")
        if torn:  # a rank was killed in mid-line: keep its half apart from our first event
            self._file.write("\n")

    def write(self, event: Event) -> None:
        if self._lead or isinstance(event, Finished):
            self._file.write(event.model_dump_json() + "\n")
            if (line := in_words(event)) is not None:
                print(line, flush=True)
            for hear in self.listeners:
                hear(event)
        elif self._first and isinstance(event, Saved):
            self._file.write(event.model_dump_json() + "\n")

    def phase(self, name: str) -> None:
        self.heartbeat.phase(name)
        self.write(Phase(name=name, t=time.time()))

    def close(self) -> None:
        self._file.close()


def in_words(event: Event) -> str | None:
    """An event as a line of the job's log; None for those that only machines read."""
    match event:
        case Started():
            total = "" if event.total_steps is None else f" of {event.total_steps}"
            return f"step {event.step}{total}: {counted(event.parameters, 'parameter')}, {counted(event.world_size, 'rank')} on {event.device}"
        case Metrics():
            return f"step {event.step}: " + "  ".join(f"{key} {value:.5g}" for key, value in event.values.items())
        case Saved():
            return f"step {event.step}: saved{' the final weights' if event.final else ''}"
        case Artifact():
            return f"made {event.name}"
        case Notice():
            return f"{event.level}: {event.message}"
        case Finished():
            return f"step {event.step}: {event.reason}" + (f": {event.message}" if event.message else "")
        case _:
            return None
