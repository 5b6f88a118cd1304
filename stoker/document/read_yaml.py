"""YAML 1.2 with the core schema, straight from parser events, so that nothing is built before it is allowed.

`no` and `3:20` are strings, `1e-3` is a number. Anchors, aliases, tags, duplicate keys, merge keys and several documents
are refused.
"""

import re
from collections.abc import Iterator
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from stoker.document.document import Place, Span, escaped
from stoker.document.rejected import MAX_WRITTEN, Rejected
from stoker.document.strict_json import INT64, MAX_DEPTH, JsonValue

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NON_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: dict[str, JsonValue] = {"": None, "~": None} | {
    spelling: value
    for word, value in (("null", None), ("true", True), ("false", False))
    for spelling in (word, word.capitalize(), word.upper())
}


def read_yaml(text: str) -> tuple[JsonValue, dict[str, Place]]:
    """The value of a YAML document and the place of everything in it. Raises Rejected."""
    reader = _Reader(text)
    try:
        return reader.document(), reader.places
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        raise Rejected("yaml-invalid", f"not YAML: {error.problem or error.context or 'unreadable'}", *position) from None
    except YAMLError:
        raise Rejected("yaml-invalid", "not YAML: it holds a character that YAML does not allow", 1, 1) from None
    except (RecursionError, ValueError, IndexError, AttributeError, TypeError):
        # The parser is not hardened: on some malformed texts it stumbles over its own assumptions.
        raise Rejected("yaml-invalid", "not YAML: the parser cannot read it", 1, 1) from None


class _Reader:
    """Consumes events and keeps the places."""

    def __init__(self, text: str) -> None:
        yaml = YAML(typ="safe", pure=True)
        yaml.version = (1, 2)
        self._events: Iterator[Event] = iter(yaml.parse(text))
        self.places: dict[str, Place] = {}
        self._values = 0

    def document(self) -> JsonValue:
        value: JsonValue = None
        documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    _refuse("yaml-documents", "several documents in one file; keep one", event)
                value = self._value(next(self._events), "", None, 0)
        return value

    def _value(self, event: Event, pointer: str, key: Span | None, depth: int) -> JsonValue:
        self._allow(event, depth)
        self.places[pointer] = Place(_span(event), key)
        if isinstance(event, ScalarEvent):
            return _scalar(event)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(pointer, depth)
        return self._mapping(pointer, depth)

    def _sequence(self, pointer: str, depth: int) -> list[JsonValue]:
        items: list[JsonValue] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            items.append(self._value(event, f"{pointer}/{len(items)}", None, depth + 1))
        return items

    def _mapping(self, pointer: str, depth: int) -> dict[str, JsonValue]:
        made: dict[str, JsonValue] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            self._allow(event, depth)
            if not isinstance(event, ScalarEvent):
                _refuse("yaml-key", "a key must be a plain word", event)
            key = str(event.value)
            if key == "<<" and event.style is None:
                _refuse("yaml-merge-key", "merge keys are not supported; use `extends`", event)
            if key in made:
                _refuse("duplicate-key", "the same key stands here twice", event)
            made[key] = self._value(next(self._events), f"{pointer}/{escaped(key)}", _span(event), depth + 1)
        return made

    def _allow(self, event: Event, depth: int) -> None:
        self._values += 1
        if self._values > MAX_WRITTEN:
            _refuse("too-many-values", f"more than {MAX_WRITTEN} values", event)
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None) is not None:
            _refuse("yaml-alias", "anchors and aliases are not supported; write the value out", event)
        if getattr(event, "tag", None) is not None:
            _refuse("yaml-tag", "tags are not supported; remove the `!…`", event)
        if isinstance(event, SequenceStartEvent | MappingStartEvent) and depth >= MAX_DEPTH:
            _refuse("too-deep", f"nested deeper than {MAX_DEPTH} levels", event)


def _scalar(event: ScalarEvent) -> JsonValue:
    text = str(event.value)
    if event.style is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return _integer(text, event)
    if _FLOAT.fullmatch(text):
        return _float(text, event)
    if _NON_FINITE.fullmatch(text):
        _refuse("non-finite", "NaN and infinity are not allowed", event)
    return text


def _integer(text: str, event: Event) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    if len(text) > 24 or not INT64[0] <= (number := int(text, base)) <= INT64[1]:
        _refuse("number-out-of-range", "an integer must fit 64 bits", event)
    return number


def _float(text: str, event: Event) -> float:
    number = float(text)
    if number - number != 0:
        _refuse("number-out-of-range", "a number must fit a 64-bit float", event)
    return number + 0.0


def _span(event: Any) -> Span:
    """The first line of what an event covers (`Any`: the marks are untyped in ruamel.yaml)."""
    start, end = event.start_mark, event.end_mark
    length = end.column - start.column if end.line == start.line else 1
    return Span(start.line + 1, start.column + 1, max(1, length))


def _refuse(code: str, detail: str, event: Any) -> NoReturn:
    span = _span(event)
    raise Rejected(code, detail, span.line, span.column, span.length)
