"""`extends` and overrides: several documents become one, and each value remembers where it came from."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from stoker.document.document import Document, Source
from stoker.document.grammar import leaves
from stoker.document.merge import merged
from stoker.document.messages import finding, reason
from stoker.document.overrides import Override, Refused, applied, parsed
from stoker.document.presets import preset, presets
from stoker.document.report import render
from stoker.document.strict_json import JsonValue
from stoker.errors import SpecError
from stoker.i18n import Lang

Fetch = Callable[[str], JsonValue | None]
"""Job id → the document that was submitted, or None when there is no such job."""
Open = Callable[[Path], Document]

MAX_CHAIN = 8
"""Longest chain of `extends`."""


def compose(
    document: Document,
    overrides: Sequence[str] = (),
    fetch: Fetch | None = None,
    *,
    open_file: Open | None = None,
    lang: Lang = "en",
) -> Document:
    """The document with all that it extends below it and the overrides above.

    `extends: job:ID` needs `fetch`; `extends: ./file` works for documents that came from files. Raises SpecError.
    """
    layers = _chain(document, fetch, open_file, lang)
    value: JsonValue = {}
    for layer in layers:
        value = merged(value, layer.value)
    sources = [source for layer in layers for source in layer.sources]
    known = [(_label(layer), layer.value) for layer in layers]
    for override in _ordered(overrides, document, lang):
        value = _over(value, override, document, lang)
        sources.append(override.source)
        known.append(("override", _tree(override)))
    return Document(value, tuple(sources), _origins(value, known), document.base)


def _label(layer: Document) -> str:
    return layer.sources[0].label if layer.sources else "user"


def _chain(document: Document, fetch: Fetch | None, open_file: Open | None, lang: Lang) -> list[Document]:
    """The documents that a document extends, lowest first, and itself, all without their `extends`."""
    layers: list[Document] = []
    current: Document | None = document
    while current is not None:
        if len(layers) == MAX_CHAIN:
            raise _refused(document, "extends-loop", lang, limit=MAX_CHAIN)
        plain = {key: value for key, value in current.value.items() if key != "extends"}
        layers.insert(0, replace(current, value=plain))
        current = _below(current, fetch, open_file, lang)
    return layers


def _below(document: Document, fetch: Fetch | None, open_file: Open | None, lang: Lang) -> Document | None:
    target = document.value.get("extends")
    if target is None:
        return None
    if not isinstance(target, str):
        raise _refused(document, "extends-unknown", lang, reason=reason("text", lang))
    kind, _, name = target.partition(":")
    if kind == "preset" and name:
        return _preset(document, name, lang)
    if kind == "job" and name:
        return _job(document, name, fetch, lang)
    return _file(document, target, open_file, lang)


def _preset(document: Document, name: str, lang: Lang) -> Document:
    found = preset(name)
    if found is None:
        raise _refused(document, "extends-unknown", lang, reason=reason("preset", lang, known=", ".join(presets())))
    return found


def _job(document: Document, name: str, fetch: Fetch | None, lang: Lang) -> Document:
    if fetch is None:
        raise _refused(document, "extends-unknown", lang, reason=reason("server", lang))
    value = fetch(name)
    if not isinstance(value, dict):
        raise _refused(document, "extends-unknown", lang, reason=reason("job", lang))
    return Document(value, (Source(f"job:{name[:80]}", "", lambda _: {}, f"job:{name[:80]}"),))


def _file(document: Document, target: str, open_file: Open | None, lang: Lang) -> Document:
    if open_file is None or document.base is None:
        raise _refused(document, "extends-unknown", lang, reason=reason("file", lang))
    if "\0" in target:
        raise _refused(document, "extends-unknown", lang, reason=reason("path", lang))
    found = open_file(document.base / target)
    sources = tuple(replace(source, label=f"file:{Path(target).name[:80]}") for source in found.sources)
    return replace(found, sources=sources)


def _refused(document: Document, kind: str, lang: Lang, **holes: str | int) -> SpecError:
    found = [finding(kind, "/extends", lang, allowed=None, **holes)]
    return SpecError(found, render(found, document) if document.sources else None)


def _ordered(overrides: Sequence[str], document: Document, lang: Lang) -> list[Override]:
    """All overrides, those that choose a kind first: `-o optimizer.lr=1 -o optimizer.type=sgd` keeps the lr."""
    made, broken = [], []
    for text in overrides:
        try:
            made.append(parsed(text, lang))
        except Refused as error:
            broken.append(error)
    if broken:
        raise _unusable(broken, document)
    return sorted(made, key=lambda override: override.steps[-1] not in ("type", "strategy"))


def _over(value: JsonValue, override: Override, document: Document, lang: Lang) -> JsonValue:
    try:
        return applied(value, override, lang)
    except Refused as error:
        raise _unusable([error], document) from None


def _unusable(errors: Sequence[Refused], document: Document) -> SpecError:
    drawn = [render([error.finding], Document({}, (error.source,))) for error in errors]
    return SpecError([error.finding for error in errors], "\n\n".join(drawn))


def _tree(override: Override) -> JsonValue:
    """What an override says, as a list of its leaves: lists on the way are not spelled out."""
    return {pointer: None for pointer, _ in leaves(override.value, override.pointer)}


def _origins(value: JsonValue, layers: Sequence[tuple[str, JsonValue]]) -> dict[str, str]:
    """Label of the topmost layer that says each leaf, where it is not the user's document."""
    said = [(label, set(said) if label == "override" else {pointer for pointer, _ in leaves(said)}) for label, said in layers]
    made: dict[str, str] = {}
    for pointer, _ in leaves(value):
        label = next((label for label, pointers in reversed(said) if pointer in pointers), "override")
        if label != "user":
            made[pointer] = label
    return made
