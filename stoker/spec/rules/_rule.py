"""What a rule between families is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from stoker.errors import Finding
from stoker.i18n import Lang, translated
from stoker.spec.rules._case import Case

Level = Literal["R", "W", "A"]
"""R rejects, W warns, A is put right without asking and documented."""


@dataclass(frozen=True)
class Hit:
    """One place that breaks a rule, and what fills the holes of its sentences."""

    pointer: str
    holes: dict[str, Any] = field(default_factory=dict)
    allowed: tuple[str, ...] | None = None


def hit(pointer: str, allowed: tuple[str, ...] | None = None, **holes: Any) -> Hit:
    return Hit(pointer, holes, allowed)


Find = Callable[[Case], Iterable[Hit]]


@dataclass(frozen=True)
class Rule:
    """A named promise about how families go together."""

    id: str
    level: Level
    reads: tuple[str, ...]
    """JSON pointers of what it looks at; where the grammar already complains there, the rule keeps silent."""
    find: Find
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


def rule(id: str, *, reads: tuple[str, ...], message: str, hint: str, level: Level = "R") -> Callable[[Find], Rule]:
    """Make a rule of the function below: it yields a hit for each place that breaks the rule."""

    def made(find: Find) -> Rule:
        return Rule(id, level, reads, find, message, hint)

    return made
