"""`-o optimizer.lr=1e-3`: one value, by dotted path, over a document. The value is YAML 1.2; list entries go by index."""

import re
from dataclasses import dataclass

from stoker.document.describe import kind_of
from stoker.document.document import Place, Source, Span, escaped
from stoker.document.grammar import Choice, Object, Shape, fields_of
from stoker.document.merge import ROOT, merged, within
from stoker.document.messages import finding
from stoker.document.read_yaml import read_yaml
from stoker.document.rejected import Rejected
from stoker.document.strict_json import JsonValue
from stoker.errors import Finding
from stoker.i18n import Lang

_PATH = re.compile(r'((?:[^.="\s]+|"[^"]*")(?:\.(?:[^.="\s]+|"[^"]*"))*)=(.*)', re.DOTALL)
_STEP = re.compile(r'[^."]+|"[^"]*"')
NAME = "-o"
"""What stands for the file name in messages."""


@dataclass(frozen=True)
class Override:
    """A parsed override."""

    steps: tuple[str, ...]
    value: JsonValue
    source: Source

    @property
    def pointer(self) -> str:
        return "".join(f"/{escaped(step)}" for step in self.steps)


class Refused(Exception):
    """An override that cannot be applied, with the text to point into."""

    def __init__(self, finding: Finding, source: Source) -> None:
        self.finding = finding
        self.source = source
        super().__init__(finding.message)


def parsed(text: str, lang: Lang) -> Override:
    """Raises Refused when it is not PATH=VALUE or the value is not YAML."""
    match = _PATH.fullmatch(text)
    if match is None:
        source = Source(NAME, text, lambda whole: {"": Place(Span(1, 1, len(whole) or 1))}, "override")
        raise Refused(finding("override-syntax", "", lang), source)
    path, written = match[1], match[2]
    steps = tuple(step.strip('"') for step in _STEP.findall(path))
    pointer = "".join(f"/{escaped(step)}" for step in steps)
    start = len(path) + 1
    try:
        value, places = read_yaml(written)
    except Rejected as error:
        place = Place(Span(1, start + error.column, error.length))
        raise Refused(
            Finding(code=error.code, message=error.detail), Source(NAME, text, lambda _: {"": place}, "override")
        ) from None
    moved = {pointer + inner: _moved(place, start) for inner, place in places.items()}
    whole = Place(Span(1, start + 1, max(1, len(written))), Span(1, 1, len(path)))
    moved[pointer] = whole if not isinstance(value, dict | list) else Place(moved[pointer].value, whole.key)
    return Override(steps, value, Source(NAME, text, lambda _: moved, "override"))


def _moved(place: Place, by: int) -> Place:
    return Place(_shifted(place.value, by), None if place.key is None else _shifted(place.key, by))


def _shifted(span: Span, by: int) -> Span:
    return Span(span.line, span.column + (by if span.line == 1 else 0), span.length)


def applied(document: JsonValue, override: Override, lang: Lang) -> JsonValue:
    """The document with an override in it. Raises Refused when the path does not lead anywhere."""
    try:
        return _set(document, override.steps, override.value, ROOT, lang, "")
    except _Lost as lost:
        raise Refused(lost.finding.model_copy(update={"pointer": override.pointer}), override.source) from None


class _Lost(Exception):
    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        super().__init__(finding.message)


def _set(below: JsonValue, steps: tuple[str, ...], value: JsonValue, shape: Shape | None, lang: Lang, at: str) -> JsonValue:
    if not steps:
        return merged(below, value, shape)
    step, rest = steps[0], steps[1:]
    path = f"{at}.{step}".strip(".")
    if isinstance(below, list):
        index = _index(below, step, path, lang)
        inner = within(shape, below)(step)
        return [_set(entry, rest, value, inner, lang, path) if i == index else entry for i, entry in enumerate(below)]
    if below is None:
        below = {}
    if not isinstance(below, dict):
        raise _Lost(finding("override-path", "", lang, path=path, given=kind_of(below, lang)))
    inner = within(shape, below)(step)
    if step in below:
        change = {step: _set(below[step], rest, value, inner, lang, path)} if rest else {step: value}
    else:
        change = {step: _set(_start(shape, step) if rest else None, rest, value, inner, lang, path)}
    return merged(below, change, shape)


def _start(shape: Shape | None, key: str) -> JsonValue:
    """What a path begins from where the document says nothing: the kind that would be the default."""
    field = fields_of(shape.model).get(key) if isinstance(shape, Object) else None
    if field is None or not isinstance(field.shape, Choice) or not isinstance(field.default, dict):
        return None
    return {field.shape.discriminator: field.default[field.shape.discriminator]}


def _index(below: list[JsonValue], step: str, path: str, lang: Lang) -> int:
    if not step.isascii() or not step.isdigit() or len(step) > 9 or int(step) >= len(below):
        raise _Lost(
            finding("override-index", "", lang, path=path, index=step[:20], length=len(below), last=max(0, len(below) - 1))
        )
    return int(step)
