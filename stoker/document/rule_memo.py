"""Checks the rules, and runs a rule again only when a field that it reads has changed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stoker.document.memo import Key, Memo, key_of
from stoker.document.sections import Recent, Sections
from stoker.document.traced import traced
from stoker.errors import Finding
from stoker.spec.derived.problem import Problem, problem_of
from stoker.spec.rules import Case, Rule

Found = tuple[tuple[int, Finding], ...]
"""Findings with the place of their rule among all rules."""


@dataclass
class Group:
    """Rules that have read the same fields so far, and what they found by the values of those."""

    reads: frozenset[str]
    rules: tuple[int, ...]
    known: Recent[Any, Found] = field(default_factory=Recent)

    def __post_init__(self) -> None:
        self.key: Key = key_of(self.reads)


class RuleMemo:
    """What `rules.check` finds in a completed spec, in English."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._problem: Memo[Problem] = Memo(problem_of)
        self._groups = [Group(frozenset(), tuple(range(len(self._rules))))]

    def check(self, sections: Sections) -> list[Finding]:
        found: list[tuple[int, Finding]] = []
        grown: dict[int, frozenset[str]] = {}
        for group in self._groups:
            known = group.known.recall(group.key(sections.numbers))
            found += self._run(group, sections, grown) if known is None else known
        if grown:
            self._groups = self._regrouped(grown)
        return [each for _, each in sorted(found, key=lambda pair: pair[0])]

    def _run(self, group: Group, sections: Sections, grown: dict[int, frozenset[str]]) -> Found:
        """Findings of a group's rules; those that read more than the group goes by are entered in `grown`."""
        problem, within = self._problem(sections), True
        found: list[tuple[int, Finding]] = []
        for index in group.rules:
            reads: set[str] = set()
            case = _TracedCase(sections, reads, problem, self._problem.reads)
            found += [(index, each) for each in self._rules[index].check(case, "en")]
            if not reads <= group.reads:
                grown[index], within = group.reads | reads, False
        made = tuple(found)
        if within:
            group.known.keep(group.key(sections.numbers), made)
        return made

    def _regrouped(self, grown: dict[int, frozenset[str]]) -> list[Group]:
        reads = {index: group.reads for group in self._groups for index in group.rules} | grown
        members: dict[frozenset[str], list[int]] = {}
        for index in range(len(self._rules)):
            members.setdefault(reads[index], []).append(index)
        kept = {(group.reads, group.rules): group for group in self._groups}
        made = ((fields, tuple(indices)) for fields, indices in members.items())
        return [kept.get(each) or Group(*each) for each in made]


class _TracedCase(Case):
    """A case that notes what a rule reads; the problem, worked out once, counts as all that it was made from."""

    _traced: tuple[set[str], Problem, frozenset[str]]

    def __init__(self, sections: Sections, reads: set[str], problem: Problem, problem_reads: frozenset[str]) -> None:
        super().__init__(traced(sections.spec, reads), sections.facts)
        object.__setattr__(self, "_traced", (reads, problem, problem_reads))

    @property
    def problem(self) -> Problem:
        reads, problem, problem_reads = self._traced
        reads.update(problem_reads)
        return problem
