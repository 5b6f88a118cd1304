"""The reference of the job file as Markdown: every key, every rule, every code. Generated, committed, compared by a test.

Each class stands in one table, where the path to it is shortest; elsewhere the type of a key links there. The kinds of a union
share a table: first the keys that all of them have, then each kind with the others.
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from stoker.document.describe import described
from stoker.document.grammar import Choice, Either, Field, Items, Object, Shape, Table, fields_of
from stoker.document.messages import GRAMMAR, PLAIN, TEXT_CODES
from stoker.document.presets import presets
from stoker.i18n import Lang, translated
from stoker.spec.base import Duration
from stoker.spec.job import JobSpec
from stoker.spec.rules import RULES

LEVELS = {"R": "rejects", "W": "warns", "A": "is put right"}
HEAD = ("| key | type | default | unit | what it does |", "|---|---|---|---|---|")


@dataclass(frozen=True)
class Section:
    """A mapping at the shortest path to it: a class, or a union with its kinds."""

    path: str
    shape: Object | Choice

    @property
    def anchor(self) -> str:
        """As GitHub makes it of the heading."""
        return self.path.lower().replace(".", "")


def reference(lang: Lang = "en") -> str:
    """The whole page."""
    parts = ["# The job file", "", "Generated from the code; `stoker explain KEY` says the same in the terminal."]
    parts += ["A type that is a link leads to the keys of that mapping.", ""]
    sections = sections_of(JobSpec)
    writer = _Writer({_identity(section.shape): section for section in sections}, lang)
    parts += [*HEAD, *map(writer.row, fields_of(JobSpec).values())]
    for section in sections:
        parts += writer.section(section)
    return "\n".join([*parts, *_presets(), *_rules(lang), *_codes()]) + "\n"


def sections_of(root: type[BaseModel]) -> list[Section]:
    """Every mapping below a class once, by top-level key, then by depth.

    Where kinds have different mappings under one key, the later one is named with its kind: `model.cnn.normalization`.
    """
    found: dict[frozenset[type[BaseModel]], Section] = {}
    taken: set[str] = set()
    waiting = deque(_below(Object(root)))
    while waiting:
        plain, exact, shape = waiting.popleft()
        if _identity(shape) in found:
            continue
        path = exact if plain in taken else plain
        taken.add(path)
        found[_identity(shape)] = Section(path, shape)
        waiting.extend((f"{path}.{inner}", f"{path}.{by_kind}", below) for inner, by_kind, below in _below(shape))
    order = list(fields_of(root))
    return sorted(found.values(), key=lambda section: order.index(section.path.split(".")[0]))


def _below(shape: Object | Choice) -> Iterator[tuple[str, str, Object | Choice]]:
    """Key, kind and key, and mapping of all that stands directly in a mapping."""
    branches = shape.branches if isinstance(shape, Choice) else {"": shape.model}
    for kind, model in branches.items():
        for name, field in fields_of(model).items():
            for inner in _mappings(field.shape):
                yield name, f"{kind}.{name}".removeprefix("."), inner


def _identity(shape: Object | Choice) -> frozenset[type[BaseModel]]:
    """What makes two shapes the same mapping."""
    return frozenset(shape.branches.values()) if isinstance(shape, Choice) else frozenset({shape.model})


def _mappings(shape: Shape) -> Iterator[Object | Choice]:
    """The mappings with known keys that may stand in a shape."""
    match shape:
        case Object() | Choice():
            yield shape
        case Items(item=inner) | Table(value=inner):
            yield from _mappings(inner)
        case Either(options):
            for option in options:
                yield from _mappings(option)
        case _:
            return


class _Writer:
    """Writes tables whose types link to sections."""

    def __init__(self, sections: Mapping[frozenset[type[BaseModel]], Section], lang: Lang) -> None:
        self._sections, self._lang = sections, lang
        self._written: dict[type[BaseModel], str] = {}
        """Class → anchor, where its keys stand."""

    def section(self, section: Section) -> Iterator[str]:
        """The heading and the table of one mapping."""
        yield from ("", f"{'#' * min(2 + section.path.count('.'), 4)} {section.path}", "", *HEAD)
        match section.shape:
            case Object(model):
                self._written[model] = section.anchor
                yield from map(self.row, fields_of(model).values())
            case Choice(discriminator, branches):
                yield from self._kinds(section, discriminator, branches)

    def _kinds(self, section: Section, discriminator: str, branches: Mapping[str, type[BaseModel]]) -> Iterator[str]:
        fields = [fields_of(model) for model in branches.values() if model not in self._written]
        shared = [field for name, field in fields[0].items() if all(each.get(name) == field for each in fields)] if fields else []
        doc = fields_of(next(iter(branches.values())))[discriminator].doc
        kinds = ", ".join(f"[{kind}](#{section.anchor}-{kind})" for kind in branches)
        yield _line(f"`{discriminator}`", kinds, "", "", translated(doc, self._lang))
        yield from map(self.row, shared)
        said = {(field.name, field.doc) for field in shared} | {(discriminator, doc)}
        for kind, model in branches.items():
            yield from self._kind(f"{section.anchor}-{kind}", kind, model, said)

    def _kind(self, anchor: str, kind: str, model: type[BaseModel], said: set[tuple[str, str]]) -> Iterator[str]:
        """A kind's row, and its keys without those that the table has said of all."""
        there = self._written.setdefault(model, anchor)
        link = "" if there == anchor else f"[same keys](#{there})"
        yield _line(f'<a id="{anchor}"></a>**{kind}**', link, "", "", " ".join((model.__doc__ or "").split()))
        if there == anchor:
            yield from (self.row(field) for field in fields_of(model).values() if (field.name, field.doc) not in said)

    def row(self, field: Field) -> str:
        kind = self._type(field.shape) + (" or null" if field.nullable else "")
        unit, doc = translated(field.knob.unit, self._lang), translated(field.doc, self._lang)
        return _line(f"`{field.name}`", kind, _default(field), unit, doc)

    def _type(self, shape: Shape) -> str:
        """What a shape takes, in words that link to the keys of a mapping."""
        match shape:
            case Object() | Choice():
                return f"[{described(shape, self._lang)}](#{self._sections[_identity(shape)].anchor})"
            case Items(item=item):
                return translated("a list, each {item}", self._lang).format(item=self._type(item))
            case Table(value=value) if list(_mappings(value)):
                return f"{described(shape, self._lang)}, each {self._type(value)}"
            case Either(options):
                return f" {translated('or', self._lang)} ".join(map(self._type, options))
            case _:
                return described(shape, self._lang)


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(field: Field) -> str:
    if field.required or field.default is None:
        return "required" if field.required else ""
    if not isinstance(field.default, dict):
        return f"`{json.dumps(field.default)}`"
    if isinstance(field.shape, Choice):
        return f"`{field.default[field.shape.discriminator]}`"
    if field.shape == Object(Duration):
        return "`" + ", ".join(f"{key}: {value}" for key, value in field.default.items() if value is not None) + "`"
    return "" if field.default else "`{}`"


def _presets() -> Iterator[str]:
    yield from ("", "## Presets", "", "| `extends: preset:…` | |", "|---|---|")
    for name, text in presets().items():
        yield f"| {name} | {text} |"


def _rules(lang: Lang) -> Iterator[str]:
    yield from ("", "## Rules between keys", "", "| rule | | says | what to do |", "|---|---|---|---|")
    for rule in sorted(RULES, key=lambda rule: rule.id):
        hint = translated(rule.hint, lang).replace("{{", "{").replace("}}", "}")
        yield f"| {rule.id} | {LEVELS[rule.level]} | {translated(rule.message, lang)} | {hint} |"


def _codes() -> Iterator[str]:
    yield from ("", "## Codes of other findings", "", "| code | says |", "|---|---|")
    for code in sorted({PLAIN.get(code, code) for code in GRAMMAR}):
        yield f"| {code} | {GRAMMAR[code].text} |"
    for code, text in sorted(TEXT_CODES.items()):
        yield f"| {code} | {text} |"


if __name__ == "__main__":
    print(reference(), end="")
