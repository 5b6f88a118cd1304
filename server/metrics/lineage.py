"""Which points count: those of the accepted lineage. A stretch that a later attempt trained again is superseded, not deleted."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlmodel import Session, col

from server.attempts.tables import Attempt


@dataclass(frozen=True)
class Lineage:
    """Per epoch the last step of it that counts; infinite for the newest."""

    cutoffs: dict[int, float]
    rewinds: Mapping[int, Sequence[Sequence[int]]] = field(default_factory=dict)
    """Per epoch [frame, step] for each time the run went back by itself: what it said before counts up to that step."""

    def cutoff(self, epoch: int, seq: float = math.inf) -> float:
        """The last step that counts of what an attempt said in a frame."""
        known = self.cutoffs.get(epoch, math.inf)
        if not (rewinds := self.rewinds.get(epoch)):
            return known
        return min([known, *(step for frame, step in rewinds if seq < frame)])

    @property
    def digest(self) -> str:
        """Changes whenever points that were shown stop to count."""
        cut = sorted((epoch, step) for epoch, step in self.cutoffs.items() if step != math.inf)
        back = sorted((epoch, [list(each) for each in rewinds]) for epoch, rewinds in self.rewinds.items() if rewinds)
        return hashlib.sha256(repr((cut, back) if back else cut).encode()).hexdigest()[:8]


def lineage_of(session: Session, job_id: str) -> Lineage:
    query = select(col(Attempt.epoch), col(Attempt.resumed_from), col(Attempt.started_step), col(Attempt.rewinds))
    rows = session.execute(query.where(col(Attempt.job_id) == job_id, col(Attempt.node) == 0)).all()
    return from_attempts(((row[0], row[1], row[2]) for row in rows), {row[0]: row[3] for row in rows if row[3]})


def from_attempts(
    attempts: Iterable[tuple[int, int | None, int | None]], rewinds: Mapping[int, Sequence[Sequence[int]]] | None = None
) -> Lineage:
    """From (epoch, resumed_from, started_step) of each: epoch e counts up to the least step that a later one began from,
    or went back to.

    An attempt that started without a checkpoint voids all before it; one that never started voids nothing.
    """
    cutoffs: dict[int, float] = {}
    known = rewinds or {}
    least = math.inf
    for epoch, resumed_from, started_step in sorted(attempts, reverse=True):
        cutoffs[epoch] = least
        if resumed_from is not None:
            least = min(least, resumed_from)
        elif started_step is not None:
            least = -1
        least = min([least, *(step for _, step in known.get(epoch, ()))])
    return Lineage(cutoffs, known)
