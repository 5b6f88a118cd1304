"""The run's voice: one JSON line per event in the rank's own file. Rank 0 speaks; others only write their end."""

import time
from pathlib import Path

from stoker.events import Event, Finished, Phase


class Journal:
    def __init__(self, home: Path, rank: int) -> None:
        self._lead = rank == 0
        path = home / f"events-rank{rank}.jsonl"
        torn = path.exists() and not path.read_bytes().endswith(b"\n")
        self._file = path.open("a", buffering=1, encoding="utf-8")
        if torn:  # a rank was killed in mid-line: keep its half apart from our first event
            self._file.write("\n")

    def write(self, event: Event) -> None:
        if self._lead or isinstance(event, Finished):
            self._file.write(event.model_dump_json() + "\n")

    def phase(self, name: str) -> None:
        self.write(Phase(name=name, t=time.time()))

    def close(self) -> None:
        self._file.close()
