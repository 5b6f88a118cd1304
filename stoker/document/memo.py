"""Functions of a spec that do not run again while what they read is the same.

What a function reads is noted whenever it runs, never declared: its result is kept under the numbers of all sections that it
has ever read. Two specs that agree in those lead a function without other inputs along the same way, so the kept result is
what it would return.
"""

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any, Generic, TypeVar

from stoker.document.sections import Recent, Sections
from stoker.document.traced import FIELDS, traced
from stoker.facts import DatasetFacts
from stoker.spec.job import JobSpec

R = TypeVar("R")
Key = Callable[[list[int]], Any]


def key_of(reads: Iterable[str]) -> Key:
    """What picks the numbers of the facts and of some fields out of `Sections.numbers`."""
    return itemgetter(0, *(FIELDS.index(name) + 1 for name in sorted(reads)))


class Memo(Generic[R]):
    """One function of a spec and the facts of its data set. It must not return None."""

    def __init__(self, work: Callable[[JobSpec, DatasetFacts | None], R]) -> None:
        self._work = work
        self.reads: frozenset[str] = frozenset()
        """Fields that the function has read so far."""
        self._key = key_of(())
        self._known: Recent[Any, R] = Recent()

    def __call__(self, sections: Sections) -> R:
        known = self._known.recall(self._key(sections.numbers))
        return self._worked_out(sections) if known is None else known

    def _worked_out(self, sections: Sections) -> R:
        reads: set[str] = set()
        result = self._work(traced(sections.spec, reads), sections.facts)
        if not reads <= self.reads:
            self.reads |= reads
            self._key, self._known = key_of(self.reads), Recent()
        return self._known.keep(self._key(sections.numbers), result)
