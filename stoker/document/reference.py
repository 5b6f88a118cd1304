"""The reference of the job file as Markdown: every key, every rule, every code. Generated, committed, compared by a test."""

import json
from collections.abc import Iterator

from pydantic import BaseModel

from stoker.document.describe import described
from stoker.document.grammar import Choice, Field, Object, fields_of, models_in, tag_of
from stoker.document.messages import GRAMMAR, PLAIN, TEXT_CODES
from stoker.document.presets import presets
from stoker.i18n import Lang, translated
from stoker.spec.base import Duration
from stoker.spec.job import JobSpec
from stoker.spec.rules import RULES

LEVELS = {"R": "rejects", "W": "warns", "A": "is put right"}


def reference(lang: Lang = "en") -> str:
    """The whole page."""
    parts = ["# The job file", "", "Generated from the code; `stoker explain KEY` says the same in the terminal.", ""]
    parts += _table(JobSpec, lang)
    for name, field in fields_of(JobSpec).items():
        parts += _section(name, field, lang, 2)
    return "\n".join([*parts, *_presets(), *_rules(lang), *_codes()]) + "\n"


def _section(path: str, field: Field, lang: Lang, depth: int, above: tuple[type[BaseModel], ...] = ()) -> Iterator[str]:
    """A heading per mapping below a key, and one per kind."""
    for model in models_in(field.shape):
        if model in above:
            continue
        kind = _kind(field, model)
        yield from ("", f"{'#' * min(depth, 5)} {path}" + (f": {kind}" if kind else ""), "")
        if model.__doc__ and kind:
            yield from (" ".join(model.__doc__.split()), "")
        yield from _table(model, lang)
        for name, inner in fields_of(model).items():
            yield from _section(f"{path}.{name}", inner, lang, depth + 1, (*above, model))


def _kind(field: Field, model: type[BaseModel]) -> str | None:
    shape = getattr(field.shape, "item", field.shape)
    return tag_of(model, shape.discriminator) if isinstance(shape, Choice) else None


def _table(model: type[BaseModel], lang: Lang) -> Iterator[str]:
    yield from ("| key | type | default | unit | what it does |", "|---|---|---|---|---|")
    for name, field in fields_of(model).items():
        kind = described(field.shape, lang) + (" or null" if field.nullable else "")
        cells = (f"`{name}`", kind, _default(field), translated(field.knob.unit, lang), translated(field.doc, lang))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


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
