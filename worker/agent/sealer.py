"""Turns what ranks say into numbered frames, in an order that a reader may rely on.

Metrics wait until they are worth a frame; whatever depends on them (a checkpoint, the end) flushes them first, so every
metric at or before a checkpoint's step has a lower number than the checkpoint.
"""

import json
import math
from typing import Any

from stoker.events import Metrics, Notice, Phase, Progress, Started
from stoker.frames import MISSING, pack_metrics
from worker.agent.logs import LogChunk
from worker.agent.spool import Spool

MAX_CELLS = 200_000
"""Numbers in one metrics frame, 1.6 MB."""
MAX_DATA = 64 << 10


class Sealer:
    def __init__(self, spool: Spool, interval: float) -> None:
        self._spool = spool
        self._interval = interval
        self._rows: list[tuple[int, dict[str, float]]] = []
        self._keys: dict[str, None] = {}
        self._progress: Progress | None = None
        self._phase: Phase | None = None
        self._since: float | None = None

    def started(self, event: Started) -> None:
        self._spool.append("started", event.model_dump(exclude={"type"}))

    def phase(self, event: Phase, now: float) -> None:
        self._phase = event
        self._wait(now)

    def progress(self, event: Progress, now: float) -> None:
        self._progress = event
        self._wait(now)

    def metrics(self, event: Metrics, now: float) -> None:
        """Adds a row; numbers of one step that come in several events share it."""
        if not event.values:
            return
        self._wait(now)
        self._keys.update(dict.fromkeys(event.values))
        if self._rows and self._rows[-1][0] == event.step and self._rows[-1][1].keys().isdisjoint(event.values):
            self._rows[-1][1].update(event.values)
        else:
            self._rows.append((event.step, dict(event.values)))
        if (len(self._rows) + 1) * (len(self._keys) + 1) > MAX_CELLS:
            self.flush()

    def notice(self, event: Notice, rank: int = 0) -> None:
        """Seals at once; what a rank attached is cut to a size that is sure to fit."""
        data: dict[str, Any] = {"rank": rank, **event.data} if rank else dict(event.data)
        if len(_json(data)) > MAX_DATA:
            data = {"dropped": "larger than 64 KiB"}
        self.flush()
        header = {"level": event.level, "code": event.code[:64], "message": event.message[:4096], "step": event.step}
        self._spool.append("notice", {**header, "data": json.loads(_json(data))})

    def log(self, rank: int, stream: str, chunk: LogChunk) -> None:
        self._spool.append("logs", {"rank": rank, "stream": stream, "offset": chunk.offset}, chunk.data)

    def stored(self, kind: str, header: dict[str, Any]) -> None:
        """A checkpoint or an artifact whose blobs the server has."""
        self.flush()
        self._spool.append(kind, header)

    def due(self, now: float) -> bool:
        return self._since is not None and now - self._since >= self._interval

    def flush(self) -> None:
        """Seals what waits: metrics, then how far the run is, then what it is busy with."""
        if self._rows:
            self._spool.append("metrics", *_pack(self._rows, list(self._keys)))
            self._rows, self._keys = [], {}
        if self._progress is not None:
            self._spool.append("progress", self._progress.model_dump(exclude={"type"}))
            self._progress = None
        if self._phase is not None:
            self._spool.append("phase", self._phase.model_dump(exclude={"type"}))
            self._phase = None
        self._since = None

    def _wait(self, now: float) -> None:
        if self._since is None:
            self._since = now


def _pack(rows: list[tuple[int, dict[str, float]]], keys: list[str]) -> tuple[dict[str, Any], bytes]:
    steps = [step for step, _ in rows]
    columns = {key: [values.get(key, MISSING) for _, values in rows] for key in keys}
    last = {key: json_number(value) for _, values in rows for key, value in values.items()}
    header = {"keys": keys, "rows": len(rows), "first_step": min(steps), "last_step": max(steps), "last": last}
    return header, pack_metrics(steps, columns)


def json_number(value: float) -> float | str:
    """A number as JSON can say it: "NaN", "Infinity" and "-Infinity" are strings."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _json(data: dict[str, Any]) -> str:
    """JSON of anything a rank may attach; what JSON has no number for becomes null."""
    return json.dumps(_finite(data), default=str)


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value
