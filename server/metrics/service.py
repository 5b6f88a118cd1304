"""Metric points: stored as they were packed, summarised on the job, read as buckets."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlmodel import Session

from server.attempts.tables import Attempt
from server.db import utcnow
from server.jobs.tables import Job
from server.metrics import store
from server.metrics.buckets import Buckets, bucketed, width_of
from server.metrics.gather import Pieces, gather
from server.metrics.lineage import Lineage, lineage_of
from server.metrics.numbers import plain, plains
from server.metrics.packed import Columns, checked, unpack
from stoker.frames import Frame


def ingest(session: Session, job: Job, attempt: Attempt, frame: Frame) -> dict[str, float | str]:
    """Store a frame and move the job's last values and objective; returns the frame's last values.

    The caller has checked that the frame is the attempt's next. Raises 422 `frame_invalid`.
    """
    columns = checked(frame)
    if attempt.number > 1 and not store.has_epoch(session, job.id, attempt.epoch):
        rewind(session, job)
    store.add(
        session,
        {
            "job_id": job.id,
            "epoch": attempt.epoch,
            "seq": frame.seq,
            "first_step": int(columns.steps[0]),
            "last_step": int(columns.steps[-1]),
            "rows": len(columns.steps),
            "keys": list(columns.keys),
            "packed": frame.payload,
            "created_at": utcnow(),
        },
    )
    last = _last_values(columns)
    job.metrics = {**job.metrics, **last}
    job.objective = _moved(job.objective, columns, math.inf)
    return last


def _last_values(columns: Columns) -> dict[str, float | str]:
    last: dict[str, float | str] = {}
    for at, key in enumerate(columns.keys):
        rows = np.flatnonzero(columns.present(at))
        if len(rows):
            last[key] = plain(float(columns.values[at][rows[-1]]))
    return last


def _moved(objective: dict[str, Any] | None, columns: Columns, cutoff: float) -> dict[str, Any] | None:
    """The objective {key, mode, best, last, best_step} with a frame's points; the first of equal ones stays the best."""
    if objective is None or objective["key"] not in columns.keys:
        return objective
    at = columns.keys.index(objective["key"])
    counts = columns.present(at) & (columns.steps <= cutoff)
    values, steps = columns.values[at][counts], columns.steps[counts]
    if not len(values):
        return objective
    moved = {**objective, "last": float(values[-1]) if math.isfinite(values[-1]) else None}
    finite = np.flatnonzero(np.isfinite(values))
    if len(finite):
        better = np.argmax if objective["mode"] == "max" else np.argmin
        best = finite[better(values[finite])]
        known, sign = objective.get("best"), 1 if objective["mode"] == "max" else -1
        if known is None or sign * values[best] > sign * known:
            moved |= {"best": float(values[best]), "best_step": int(steps[best])}
    return moved


def rewind(session: Session, job: Job) -> None:
    """Before the first points of a stretch that was trained before, by a later attempt or again by the same: last values and objective as of the points that still count."""
    lineage = lineage_of(session, job.id)
    last: dict[str, float | str] = {}
    objective = {k: job.objective[k] for k in ("key", "mode")} if job.objective else None
    for row in store.chunks(session, job.id, 0, None, store.newest(session, job.id)):
        columns = unpack(json.loads(row.keys), row.rows, row.packed)
        cutoff = lineage.cutoff(row.epoch, row.seq)
        kept = int(np.searchsorted(columns.steps, min(cutoff, 2**62), "right"))
        last |= _last_values(Columns(columns.keys, columns.steps[:kept], [v[:kept] for v in columns.values]))
        objective = _moved(objective, columns, cutoff)
    job.metrics, job.objective = last, objective


@dataclass(frozen=True)
class Cursor:
    """What a reader knows: buckets of a width, of a lineage, up to a chunk. As text: `width-lineage-epoch-seq`."""

    width: int
    lineage: str
    epoch: int
    seq: int

    PATTERN = r"^[0-9]{1,18}-[0-9a-f]{8}-[0-9]{1,18}-[0-9]{1,18}$"

    def __str__(self) -> str:
        return f"{self.width}-{self.lineage}-{self.epoch}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        width, lineage, epoch, seq = text.split("-")
        return cls(int(width), lineage, int(epoch), int(seq))


def read(
    session: Session, job_id: str, total_steps: int | None, keys: Sequence[str], max_points: int, since: Cursor | None
) -> dict[str, Any]:
    """stoker.views.MetricsView as JSON: everything, or the buckets that changed after a cursor."""
    lineage, upto = lineage_of(session, job_id), store.newest(session, job_id)
    if since is not None:
        width = width_of(total_steps, store.last_step(session, job_id), max_points)
        if (since.width, since.lineage) == (width, lineage.digest) and (since.epoch, since.seq) <= upto:
            span = store.span_after(session, job_id, since.epoch, since.seq)
            if span is None:
                return _answer(width, lineage, upto, complete=False, series={})
            first, last = span[0] // width * width, span[1] // width * width + width - 1
            found = gather(store.chunks(session, job_id, first, last, upto), lineage, set(keys), first, last)
            return _answer(width, lineage, upto, complete=False, series=_bucketed(found, width))
    rows = store.chunks(session, job_id, 0, None, upto)
    width = width_of(total_steps, max((row.last_step for row in rows), default=0), max_points)
    return _answer(width, lineage, upto, complete=True, series=_bucketed(gather(rows, lineage, set(keys), 0, None), width))


def _bucketed(found: Pieces, width: int) -> dict[str, Any]:
    return {key: _series(bucketed(steps, values, width)) for key, (steps, values) in sorted(found.items())}


def _answer(width: int, lineage: Lineage, upto: tuple[int, int], *, complete: bool, series: dict[str, Any]) -> dict[str, Any]:
    return {"bucket": width, "cursor": str(Cursor(width, lineage.digest, *upto)), "complete": complete, "keys": series}


def _series(buckets: Buckets) -> dict[str, Any]:
    return {
        "steps": buckets.steps.tolist(),
        "min": plains(buckets.min.tolist()),
        "mean": plains(buckets.mean.tolist()),
        "max": plains(buckets.max.tolist()),
        "last": plains(buckets.last.tolist()),
        "count": buckets.count.tolist(),
    }
