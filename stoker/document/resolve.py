"""From a document to the spec that runs: validated, complete, pinned to its data, with a hash and the origin of each value."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from stoker.document.canonical import canonical_json, digest
from stoker.document.compose import compose
from stoker.document.describe import kind_of
from stoker.document.document import Document, steps
from stoker.document.grammar import leaves
from stoker.document.messages import finding
from stoker.document.report import render, sort_key
from stoker.document.sections import Sections
from stoker.document.sizes import expanded
from stoker.document.strict_json import JsonValue
from stoker.document.upgrade import upgraded
from stoker.document.validate import MAX_FINDINGS, parse
from stoker.errors import Finding, SpecError
from stoker.facts import DatasetFacts
from stoker.i18n import Lang
from stoker.spec.derived.automatic import completed
from stoker.spec.job import JobSpec
from stoker.spec.rules import check


@dataclass(frozen=True)
class Resolved:
    """A spec with nothing left open."""

    spec: JobSpec
    submitted: dict[str, JsonValue]
    """The document as it came, after `extends` and overrides."""
    origins: dict[str, str]
    """JSON pointer of each leaf of the spec → user, override, default, auto, `preset:NAME`, `file:NAME` or `job:ID`."""
    origins_text: str
    """The origins as JSON."""
    digest: str
    """SHA-256 in hex: the experiment's identity."""
    canonical: str
    """Canonical JSON of the whole spec."""
    warnings: tuple[Finding, ...]
    sections: Sections | None = field(default=None, repr=False, compare=False)
    """The spec by its fields, with what memos know of them; None when the document was resolved on its own."""


def resolve(document: JsonValue | Document, facts: DatasetFacts | None = None, *, lang: Lang = "en") -> Resolved:
    """Validate a document and fill in all that it leaves automatic.

    With facts every automatic field is set and the data set is pinned to name@version; without, what follows from the
    document alone. Resolving a resolved spec gives the same spec. Raises SpecError with every finding.
    """
    known = document if isinstance(document, Document) else Document(document)
    if not isinstance(known.value, dict):
        raise _error([finding("not-a-mapping", "", lang, given=kind_of(known.value, lang))], known)
    if "extends" in known.value:
        known = compose(known, lang=lang)
    value, brought = expanded(upgraded(known.value, lang), lang)
    spec, found = parse(value, lang)
    if spec is None:
        raise _error([*found, *_rules_of_the_rest(value, found, facts, lang)], known)
    final, late = parse(completed(spec, facts).model_dump(mode="json"), lang)
    found = late if final is None else check(final, facts, lang=lang)
    if final is None or any(each.severity == "error" for each in found):
        raise _error(found, known)
    warnings = tuple(sorted(found, key=sort_key(known)))
    labels = {**known.origins, **brought}
    origins = origins_of(final.model_dump(mode="json"), value, spec.model_dump(mode="json"), labels)
    text = json.dumps(origins, separators=(",", ":"))
    return Resolved(final, known.value, origins, text, digest(final), canonical_json(final), warnings)


MAX_POINTER = 256
"""Longest pointer of a finding, in characters; keys are input, and input is not repeated at length."""


def _error(found: list[Finding], document: Document) -> SpecError:
    ordered = sorted(found, key=sort_key(document))
    drawn = render(ordered, document) if document.sources else None
    return SpecError([_short(each) for each in ordered], drawn)


def _short(each: Finding) -> Finding:
    if len(each.pointer) <= MAX_POINTER:
        return each
    return each.model_copy(update={"pointer": each.pointer[: MAX_POINTER - 1] + "…"})


def _rules_of_the_rest(
    value: dict[str, JsonValue], found: list[Finding], facts: DatasetFacts | None, lang: Lang
) -> list[Finding]:
    """What the rules say of the parts that parsed: broken values are left out, and rules that read them keep silent."""
    if len(found) >= MAX_FINDINGS:
        return []
    rest, _ = parse(_without(value, [each.pointer for each in found]), lang)
    if rest is None:
        return []
    broken = [_blamed(each) for each in found]
    final, _ = parse(completed(rest, facts).model_dump(mode="json"), lang)
    return [] if final is None else check(final, facts, lang=lang, broken=broken)


def _blamed(each: Finding) -> str:
    """An unknown key may have been meant as any of its neighbours, so it spoils its whole mapping."""
    return each.pointer.rpartition("/")[0] if each.code == "unknown-key" else each.pointer


def _without(value: JsonValue, pointers: list[str]) -> JsonValue:
    doomed = {tuple(steps(pointer)) for pointer in pointers}
    return _pruned(value, (), doomed)


def _pruned(value: JsonValue, at: tuple[str, ...], doomed: set[tuple[str, ...]]) -> JsonValue:
    if isinstance(value, dict):
        return {key: _pruned(inner, (*at, key), doomed) for key, inner in value.items() if (*at, key) not in doomed}
    if isinstance(value, list):
        kept = ((index, inner) for index, inner in enumerate(value) if (*at, str(index)) not in doomed)
        return [_pruned(inner, (*at, str(index)), doomed) for index, inner in kept]
    return value


def origins_of(
    final: Mapping[str, JsonValue], value: dict[str, JsonValue], parsed: Mapping[str, JsonValue], labels: Mapping[str, str]
) -> dict[str, str]:
    """Where each leaf of the final spec comes from, given the document, the spec that was parsed from it, and labels of its leaves."""
    given, before = dict(leaves(value)), dict(leaves(parsed))
    return {pointer: _origin(pointer, leaf, given, before, labels) for pointer, leaf in leaves(final)}


def _origin(
    pointer: str, leaf: JsonValue, given: dict[str, JsonValue], before: dict[str, JsonValue], labels: Mapping[str, str]
) -> str:
    if pointer in before and before[pointer] == leaf:
        source = pointer if pointer in given else _spelled_short(pointer, given)
        return "default" if source is None else labels.get(source, "user")
    return "auto"


def _spelled_short(pointer: str, given: dict[str, JsonValue]) -> str | None:
    """`metrics: [f1]` gives `metrics/0/type`."""
    head, _, last = pointer.rpartition("/")
    return head if last == "type" and isinstance(given.get(head), str) else None


__all__ = ["Resolved", "canonical_json", "digest", "resolve"]
