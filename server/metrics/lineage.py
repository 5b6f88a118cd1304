"""Which points count: those of the accepted lineage. A stretch that a later attempt trained again is superseded, not deleted."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlmodel import Session, col

from server.attempts.tables import Attempt


@dataclass(frozen=True)
class Lineage:
    """Per epoch the last step of it that counts; infinite for the newest."""

    cutoffs: dict[int, float]

    def cutoff(self, epoch: int) -> float:
        return self.cutoffs.get(epoch, math.inf)

    @property
    def digest(self) -> str:
        """Changes whenever points that were shown stop to count."""
        cut = sorted((epoch, step) for epoch, step in self.cutoffs.items() if step != math.inf)
        return hashlib.sha256(repr(cut).encode()).hexdigest()[:8]


def lineage_of(session: Session, job_id: str) -> Lineage:
    query = select(col(Attempt.epoch), col(Attempt.resumed_from), col(Attempt.started_step))
    return from_attempts((row[0], row[1], row[2]) for row in session.execute(query.where(col(Attempt.job_id) == job_id)))


def from_attempts(attempts: Iterable[tuple[int, int | None, int | None]]) -> Lineage:
    """From (epoch, resumed_from, started_step) of each: epoch e counts up to the least step that a later one began from.

    An attempt that started without a checkpoint voids all before it; one that never started voids nothing.
    """
    cutoffs: dict[int, float] = {}
    least = math.inf
    for epoch, resumed_from, started_step in sorted(attempts, reverse=True):
        cutoffs[epoch] = least
        if resumed_from is not None:
            least = min(least, resumed_from)
        elif started_step is not None:
            least = -1
    return Lineage(cutoffs)
