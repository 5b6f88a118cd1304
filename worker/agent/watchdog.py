"""Notices ranks that make no progress, from the liveness that each leaves in the workspace.

Ranks go in step, so one that stands still holds up all, whoever it is. What is counted is the time in which the watchdog was
awake itself: after the machine slept, or the agent was stopped, nobody is accused.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stoker.liveness import Liveness, name_of, parse

STEPS = "training"
"""The phase in which steps are made, each as long as the others; all others take as long as they take."""
LONGEST_LOOK = 0.2
"""Seconds that the time between two looks counts at most."""
STATES = {"T": "stopped by a signal", "t": "stopped by a debugger", "D": "waiting for a disk or a device", "R": "computing"}
"""Letters of /proc/PID/stat that say more than waiting."""


@dataclass(frozen=True)
class Hang:
    """Who stood still first, and where everybody was."""

    first: tuple[int, ...]
    liveness_by_rank: Mapping[int, Liveness | None]
    states: Mapping[int, str]
    seconds: float
    """Without any progress of the rank that was found."""

    @property
    def step(self) -> int:
        """The last step that every rank made."""
        return min((liveness.step for liveness in self.liveness_by_rank.values() if liveness is not None), default=0)

    @property
    def message(self) -> str:
        who = ", ".join(f"rank {rank}{_doing(self.liveness_by_rank[rank], self.states.get(rank, ''))}" for rank in self.first)
        return f"no progress for {self.seconds:.0f} s after step {self.step}; first to stand still: {who}"


def _doing(liveness: Liveness | None, state: str) -> str:
    said = [f"in phase {liveness.phase}" if liveness is not None else "before it began", *filter(None, [STATES.get(state)])]
    return f" ({', '.join(said)})"


@dataclass
class _Watched:
    liveness: Liveness | None = None
    idle: float = 0.0
    first_step: int | None = None
    """Steps made when steps began; the first one of an attempt may compile and is given more time."""

    def see(self, liveness: Liveness | None, passed: float) -> None:
        self.idle = self.idle + passed if liveness == self.liveness else 0.0
        self.liveness = liveness
        if self.first_step is None and liveness is not None and liveness.phase == STEPS:
            self.first_step = liveness.step

    @property
    def stepping(self) -> bool:
        return (
            self.liveness is not None
            and self.liveness.phase == STEPS
            and self.first_step is not None
            and self.liveness.step > self.first_step
        )


@dataclass
class Watchdog:
    home: Path
    timeout: float | None
    """Seconds that a step may take; None for no watch at all."""
    grace: float
    """Seconds that anything else may take."""
    _ranks: dict[int, _Watched] = field(default_factory=dict)
    _looked: float | None = None

    def look(self, at: float, running: Collection[int]) -> tuple[int, ...]:
        """Ranks of those that run which have used up their time; `at` is a clock in seconds."""
        if self.timeout is None:
            return ()
        passed = 0.0 if self._looked is None else min(at - self._looked, LONGEST_LOOK)
        self._looked = at
        for rank in running:
            self._ranks.setdefault(rank, _Watched()).see(self._read(rank), passed)
        return tuple(rank for rank in running if self._ranks[rank].idle > self._allowed(self._ranks[rank]))

    def _allowed(self, watched: _Watched) -> float:
        assert self.timeout is not None
        return self.timeout if watched.stepping else max(self.timeout, self.grace)

    def _read(self, rank: int) -> Liveness | None:
        try:
            return parse((self.home / name_of(rank)).read_bytes())
        except OSError:
            return None

    def judge(self, stuck: Collection[int], states: Mapping[int, str]) -> Hang:
        """Who was first: a process that is stopped, else the one with the oldest liveness. `states`: letters by rank."""
        liveness_by_rank = {rank: watched.liveness for rank, watched in self._ranks.items() if rank in states}
        stopped = tuple(sorted(rank for rank, state in states.items() if state in "Tt"))
        first = stopped or (min(liveness_by_rank, key=lambda rank: _age(liveness_by_rank[rank])),)
        return Hang(first, liveness_by_rank, states, max(self._ranks[rank].idle for rank in stuck))


def _age(liveness: Liveness | None) -> tuple[int, int]:
    """Sorts the oldest first."""
    return (-1, 0) if liveness is None else (liveness.step, liveness.nanoseconds)
