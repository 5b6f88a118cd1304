"""Times of the phases of a launch, for benchmarks; off unless STOKER_TRACE_LAUNCH is set."""

import json
import time
from pathlib import Path

NAME = "launch-trace.jsonl"


class Trace:
    def __init__(self, home: Path, enabled: bool) -> None:
        self._path = home / NAME if enabled else None

    def mark(self, phase: str) -> None:
        """Notes that a phase has ended now (Unix time)."""
        if self._path is not None:
            with self._path.open("a") as out:
                out.write(json.dumps({"phase": phase, "t": time.time()}) + "\n")
