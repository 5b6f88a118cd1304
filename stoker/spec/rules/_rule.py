"""What a rule between families is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from stoker.errors import Finding
from stoker.facts import ArrayFacts, DatasetFacts, ImageFacts, TableFacts, TextFacts, WeightFacts
from stoker.i18n import Lang, translated
from stoker.spec.derived.problem import Problem, problem_of
from stoker.spec.job import JobSpec

Level = Literal["R", "W", "A"]
"""R rejects, W warns, A is put right without asking and documented."""


@dataclass(frozen=True)
class Case:
    """A completed spec and the facts of its data set, where they are known."""

    spec: JobSpec
    facts: DatasetFacts | None

    @property
    def content(self) -> TableFacts | TextFacts | ImageFacts | ArrayFacts | WeightFacts | None:
        return None if self.facts is None else self.facts.content

    @cached_property
    def problem(self) -> Problem:
        return problem_of(self.spec, self.facts)


@dataclass(frozen=True)
class Hit:
    """One place that breaks a rule, and what fills the holes of its sentences."""

    pointer: str
    holes: dict[str, Any] = field(default_factory=dict)
    allowed: tuple[str, ...] | None = None


def hit(pointer: str, allowed: tuple[str, ...] | None = None, **holes: Any) -> Hit:
    return Hit(pointer, holes, allowed)


@dataclass(frozen=True)
class Rule:
    """A named promise about how families go together."""

    id: str
    level: Level
    reads: tuple[str, ...]
    """JSON pointers of what it looks at; where the grammar already complains there, the rule keeps silent."""
    find: Callable[[Case], Iterable[Hit]]
    message: str
    """Sentence with `{holes}`."""
    hint: str
    """What to change, with `{holes}`."""

    def check(self, case: Case, lang: Lang) -> list[Finding]:
        severity = "error" if self.level == "R" else "warning"
        return [
            Finding(
                pointer=found.pointer,
                code=self.id,
                message=translated(self.message, lang).format(**found.holes),
                hint=translated(self.hint, lang).format(**found.holes),
                allowed=found.allowed,
                severity=severity,
            )
            for found in self.find(case)
        ]
