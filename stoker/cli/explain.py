"""`stoker explain`."""

import json
from collections.abc import Iterator
from typing import Annotated

import typer

from stoker.cli import emit, source
from stoker.cli.failure import Failure
from stoker.cli.terminal import out
from stoker.document.explain import Explanation
from stoker.document.explain import explain as explained
from stoker.errors import SpecError


def explain(
    path: Annotated[str, typer.Argument(metavar="KEY", help="Dotted path, `optimizer.lr`; nothing for the whole spec.")] = "",
    fields: emit.Fields = None,
) -> None:
    """Say what a key of the job file means: type, default, bounds, unit, what it moves. STOKER_LANG=zh for Chinese.

    stoker explain optimizer.beta1
    stoker explain model.transformer_decoder
    """
    try:
        found = explained(path, source.lang())
    except SpecError as error:
        first = error.findings[0]
        raise Failure(first.message, first.hint or "`stoker explain` lists the keys at the top", code=2) from None
    emit.one(found, lambda: _page(found), fields=fields)


def _page(found: Explanation) -> None:
    out().print(found.path or "job", style="bold", end=f"  {found.type}\n")
    out().print(f"  {found.text}")
    _rows_of(found)
    for key in found.keys:
        out().print(f"    {key.name:<28} {key.text}", style="dim")
    for variant in found.variants:
        out().print("")
        out().print(f"  for {', '.join(variant.kinds)}: {variant.type}", style="bold")
        out().print(f"  {variant.text}")
        _rows_of(variant)


def _rows_of(found: Explanation) -> None:
    for name, text in _rows(found):
        out().print(f"  {name:<9} {text}")


def _rows(found: Explanation) -> Iterator[tuple[str, str]]:
    if found.kinds:
        yield "of", ", ".join(found.kinds)
    yield "default", "required" if found.required else json.dumps(found.default, ensure_ascii=False, default=str)
    for name, text in (("bounds", found.bounds), ("unit", found.unit)):
        if text:
            yield name, text
    for name, many in (("allowed", found.allowed), ("affects", found.affects), ("rules", found.rules)):
        if many:
            yield name, ", ".join(many)
