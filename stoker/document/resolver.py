"""Resolves documents as `resolve` does, and works out only what differs from documents before."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial

from stoker.document.document import Document
from stoker.document.memo import Memo
from stoker.document.report import sort_key
from stoker.document.resolve import Resolved, origins_of, resolve
from stoker.document.rule_memo import RuleMemo
from stoker.document.sections import Reader, Recent, Section, Sections, Unclear
from stoker.document.sizes import expanded
from stoker.document.strict_json import JsonValue
from stoker.document.traced import FIELDS
from stoker.document.upgrade import upgraded
from stoker.document.validate import json_text
from stoker.errors import Finding, SpecError
from stoker.facts import DatasetFacts
from stoker.spec.derived.automatic import FILLS, Fill
from stoker.spec.job import JobSpec
from stoker.spec.rules import RULES, Rule

SAME = Section(-1, None)
"""What stands for the section that a fill leaves as it is."""
Origins = tuple[dict[str, str], str]
"""Origins of one field's leaves, and their JSON text without braces."""


class Resolver:
    """Remembers sections, what completes them, findings and origins. Not for several threads at a time."""

    def __init__(self, rules: Sequence[Rule] = RULES) -> None:
        self._reader = Reader()
        self._fills = [(FIELDS.index(name), Memo(partial(_filled, FIELDS.index(name), fill))) for name, fill in FILLS]
        self._finals: tuple[Recent[int, Section], ...] = tuple(Recent() for _ in FIELDS)
        self._rules = RuleMemo(rules)
        self._origins: tuple[Recent[tuple[int, int], Origins], ...] = tuple(Recent() for _ in FIELDS)
        self._facts: Recent[int, tuple[DatasetFacts, int]] = Recent()

    def resolve(self, document: Document, facts: DatasetFacts | None = None) -> Resolved:
        """What `resolve` returns for the document. Raises SpecError with every finding."""
        try:
            return self._resolved(document, facts)
        except (Unclear, SpecError):
            return resolve(document, facts)  # says what is wrong

    def _resolved(self, document: Document, facts: DatasetFacts | None) -> Resolved:
        if "extends" in document.value:
            raise Unclear("extends")
        value, brought = expanded(upgraded(document.value))
        parsed = self._read(value)
        sections = Sections(parsed, facts, self._number_of(facts))
        for at, fill in self._fills:
            if (filled := fill(sections)) is not SAME:
                sections[at] = filled
        for at, section in enumerate(sections.sections):
            sections[at] = self._final(at, section)
        found = self._rules.check(sections)
        if any(each.severity == "error" for each in found):
            raise SpecError(found)
        origins, text = self._traced_back(value, parsed, sections.sections, {**document.origins, **brought})
        return Resolved(
            spec=sections.spec,
            submitted=document.value,
            origins=origins,
            origins_text=text,
            digest=hashlib.sha256(sections.experiment.encode()).hexdigest(),
            canonical=sections.canonical,
            warnings=_in_order(found, document),
            sections=sections,
        )

    def _read(self, value: dict[str, JsonValue]) -> list[Section]:
        if not value.keys() <= _KNOWN:
            raise Unclear("unknown key")
        try:
            return [
                self._reader.read(at, json_text(value[name])) if name in value else self._reader.absent(at)
                for at, name in enumerate(FIELDS)
            ]
        except (ValueError, TypeError, RecursionError) as error:
            raise Unclear("not JSON") from error

    def _final(self, at: int, section: Section) -> Section:
        """The section as it is read from its own text, which names every key."""
        finals = self._finals[at]
        known = finals.recall(section.number)
        return known or finals.keep(section.number, self._reader.read(at, json_text(section.plain)))

    def _traced_back(
        self, value: dict[str, JsonValue], parsed: list[Section], final: list[Section], labels: Mapping[str, str]
    ) -> Origins:
        labeled = {pointer.split("/", 2)[1] for pointer in labels}
        made: dict[str, str] = {}
        texts = []
        for at, name in enumerate(FIELDS):
            if name in labeled:
                origins, text = _origins(name, value, parsed[at], final[at], labels)
            else:
                key = (parsed[at].number, final[at].number)
                known = self._origins[at].recall(key)
                origins, text = known or self._origins[at].keep(key, _origins(name, value, parsed[at], final[at], {}))
            made.update(origins)
            texts.append(text)
        return made, "{" + ",".join(texts) + "}"

    def _number_of(self, facts: DatasetFacts | None) -> int:
        if facts is None:
            return 0
        known = self._facts.recall(id(facts))
        return (known or self._facts.keep(id(facts), (facts, Section(-1, None).number)))[1]


_KNOWN = frozenset(FIELDS)


def _filled(at: int, fill: Fill, spec: JobSpec, facts: DatasetFacts | None) -> Section:
    value = fill(spec, facts)
    return SAME if value is getattr(spec, FIELDS[at]) else Section(at, value)


def _origins(name: str, value: dict[str, JsonValue], parsed: Section, final: Section, labels: Mapping[str, str]) -> Origins:
    given = {name: value[name]} if name in value else {}
    made = origins_of({name: final.plain}, given, {name: parsed.plain}, labels)
    return made, json.dumps(made, separators=(",", ":"))[1:-1]


def _in_order(found: list[Finding], document: Document) -> tuple[Finding, ...]:
    return tuple(sorted(found, key=sort_key(document))) if found else ()
