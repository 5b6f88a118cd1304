"""Tells of ranks that hold up all others: each report is looked at, and one that is slow time after time is named."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median_low

from stoker.events import Notice
from worker.trainer.measure.figures import Performance
from worker.trainer.runtime.journal import Journal


@dataclass
class Stragglers:
    """A rank's own time, of a step without waiting for others, against that of the rank in the middle (the lower one of two).

    Read after the figures that it looks at.
    """

    performance: Performance
    journal: Journal
    factor: float
    reports: int
    """In a row, before somebody is told."""
    _slow: dict[int, int] = field(default_factory=dict)
    """Reports in a row by rank."""

    def read(self, steps: int, count: int) -> dict[str, float]:
        self.look([rank.own_seconds for rank in self.performance.ranks])
        return {}

    def look(self, own: Sequence[float]) -> None:
        """Seconds per step of each rank, of one report."""
        usual = median_low(own)
        for rank, seconds in enumerate(own):
            slow = usual > 0 and seconds > self.factor * usual
            self._slow[rank] = self._slow.get(rank, 0) + 1 if slow else 0
            if self._slow[rank] == self.reports:
                self._tell(rank, seconds, usual)

    def _tell(self, rank: int, seconds: float, usual: float) -> None:
        message = f"rank {rank} is slow: it computes {seconds:.3g} s per step, the median rank {usual:.3g} s"
        data = {"rank": rank, "seconds": seconds, "usual": usual, "reports": self.reports}
        self.journal.write(Notice(level="warning", code="straggler", message=message, data=data))
