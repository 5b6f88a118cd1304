"""The fields of a spec one by one, each checked and written out once for all documents that hold the same value."""

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, get_type_hints

from pydantic import ValidationError, create_model

from stoker.document.canonical import canonical_text
from stoker.document.strict_json import JsonValue
from stoker.document.traced import FIELDS
from stoker.facts import DatasetFacts
from stoker.spec.base import Spec
from stoker.spec.job import METADATA, JobSpec

KEPT = 512
"""Values that are remembered per field or function; the one used longest ago is forgotten first."""
K = TypeVar("K")
R = TypeVar("R")
_numbers = itertools.count(1)


class Recent(OrderedDict[K, R]):
    """The `KEPT` newest values by key."""

    def recall(self, key: K) -> R | None:
        found = self.get(key)
        if found is not None:
            self.move_to_end(key)
        return found

    def keep(self, key: K, value: R) -> R:
        self[key] = value
        if len(self) > KEPT:
            self.popitem(last=False)
        return value


class Unclear(Exception):
    """A value that is not valid, or that only the whole document can explain."""


def _alone(name: str) -> type[Spec]:
    """A class with one field of a spec, which checks and writes it as JobSpec does."""
    info = JobSpec.model_fields[name]
    hint = get_type_hints(JobSpec, include_extras=True)[name]
    fields: dict[str, Any] = {name: (hint, ... if info.is_required() else info.default)}
    made: type[Spec] = create_model(f"Alone_{name}", __base__=Spec, **fields)
    return made


ALONE: tuple[type[Spec], ...] = tuple(_alone(name) for name in FIELDS)
"""Per field of a spec a class that has this field alone."""


@dataclass(frozen=True, eq=False)
class Section:
    """The value of one field. Two sections with the same number have the same value."""

    at: int
    """The field's place in FIELDS."""
    value: Any
    number: int = field(default_factory=lambda: next(_numbers))

    @cached_property
    def plain(self) -> JsonValue:
        """The value as JSON data."""
        return self._whole.model_dump(mode="json")[FIELDS[self.at]]

    @cached_property
    def text(self) -> str:
        """Name and value as canonical JSON."""
        return f'"{FIELDS[self.at]}":{canonical_text(self.plain)}'

    @cached_property
    def indented(self) -> int:
        """Characters of name and value in the text of the spec that checkpoints hold."""
        return len(self._whole.model_dump_json(indent=1)) - len("{\n\n}")

    @property
    def _whole(self) -> Spec:
        return ALONE[self.at].model_construct(**{FIELDS[self.at]: self.value})


class Reader:
    """Checks values of fields; a value that was checked before is not checked again."""

    def __init__(self) -> None:
        self._known: tuple[Recent[str, Section], ...] = tuple(Recent() for _ in FIELDS)
        self._absent: dict[int, Section] = {}

    def read(self, at: int, text: str) -> Section:
        """The section of a JSON text. Raises Unclear for a value that does not fit."""
        known = self._known[at]
        return known.recall(text) or known.keep(text, _checked(at, f'{{"{FIELDS[at]}":{text}}}'))

    def absent(self, at: int) -> Section:
        """The section of a field that a document leaves out. Raises Unclear where it must not."""
        if (known := self._absent.get(at)) is None:
            known = self._absent[at] = _checked(at, "{}")
        return known


def _checked(at: int, text: str) -> Section:
    try:
        return Section(at, getattr(ALONE[at].model_validate_json(text), FIELDS[at]))
    except (ValidationError, RecursionError) as error:
        raise Unclear(FIELDS[at]) from error


class Sections:
    """A spec as its sections, and the facts of its data set. Fields are set while it is completed."""

    def __init__(self, sections: Sequence[Section], facts: DatasetFacts | None, facts_number: int) -> None:
        self.sections, self.facts = list(sections), facts
        self.numbers = [facts_number, *(each.number for each in sections)]
        """What memos look up: the facts' number, then those of the sections."""
        self._spec: JobSpec | None = None

    def __setitem__(self, at: int, section: Section) -> None:
        self.sections[at], self.numbers[at + 1], self._spec = section, section.number, None

    @property
    def spec(self) -> JobSpec:
        if self._spec is None:
            self._spec = _BLANK.model_copy(update={FIELDS[each.at]: each.value for each in self.sections})
            self._spec.__pydantic_fields_set__.update(FIELDS)
        return self._spec

    @property
    def canonical(self) -> str:
        """`canonical_json` of the spec."""
        return "{" + ",".join(self.sections[at].text for at in _SORTED) + "}"

    @property
    def experiment(self) -> str:
        """What `digest` of the spec hashes."""
        return "{" + ",".join(self.sections[at].text for at in _EXPERIMENT) + "}"

    @property
    def indented(self) -> int:
        """Characters of `spec.model_dump_json(indent=1)`."""
        return len("{\n\n}") + sum(each.indented for each in self.sections) + len(",\n") * (len(FIELDS) - 1)


_SORTED = tuple(FIELDS.index(name) for name in sorted(FIELDS))
_EXPERIMENT = tuple(at for at in _SORTED if FIELDS[at] not in METADATA)
_BLANK = JobSpec.model_construct()  # type: ignore[call-arg]  # every field is set before it is read
