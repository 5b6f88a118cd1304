"""The catalog of rules between families: each has an id, says what to change, and is reported together with all others.

A rule is a function with `@rule(…)` above it, in the module named after the family that its findings point at, as `stoker.spec`
names it: `/training/distillation` is in `rules/training/distillation.py`. A rule whose findings point at several families is in
that of the first pointer in its `reads`. Families come in the order of the fields of `JobSpec`, the modules of a family by name,
the rules of a module as they stand in it.
"""

from collections.abc import Iterable, Iterator
from importlib import import_module
from pkgutil import walk_packages

from stoker.errors import Finding
from stoker.facts import DatasetFacts
from stoker.i18n import Lang
from stoker.spec.job import JobSpec
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, Level, Rule


def _modules() -> list[str]:
    """Names of the modules that hold rules, in the order of the families."""
    families = list(JobSpec.model_fields)
    found = (module.name.removeprefix(f"{__name__}.") for module in walk_packages(__path__, f"{__name__}."))
    named = [name for name in found if not name.startswith("_")]
    return sorted(named, key=lambda name: (families.index(name.partition(".")[0]), name))


def _rules(module: str) -> Iterator[Rule]:
    """The rules that a module defines, as they stand in it; a tuple of rules is made of one table."""
    for value in vars(import_module(f"{__name__}.{module}")).values():
        if isinstance(value, Rule):
            yield value
        elif isinstance(value, tuple):
            yield from (each for each in value if isinstance(each, Rule))


RULES: tuple[Rule, ...] = tuple(rule for module in _modules() for rule in _rules(module))
"""Every rule, by family."""


def check(spec: JobSpec, facts: DatasetFacts | None = None, *, lang: Lang = "en", broken: Iterable[str] = ()) -> list[Finding]:
    """All findings of all rules for a completed spec.

    `broken` are pointers that the grammar refused: rules that read them say nothing.
    """
    case = Case(spec, facts)
    silent = tuple(broken)
    return [found for rule in RULES if not _touches(rule, silent) for found in rule.check(case, lang)]


def _touches(rule: Rule, broken: tuple[str, ...]) -> bool:
    return any(_overlap(read, pointer) for read in rule.reads for pointer in broken)


def _overlap(a: str, b: str) -> bool:
    return a == b or a.startswith(f"{b}/") or b.startswith(f"{a}/")


__all__ = ["RULES", "Case", "Hit", "Level", "Rule", "check"]
