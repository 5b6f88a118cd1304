"""Findings drawn for people and machines: text with carets, JSON, GitHub annotations, SARIF."""

import json
import unicodedata
from collections.abc import Callable, Sequence
from typing import Literal, assert_never

from stoker.document.document import Document, Place, Source, Span
from stoker.errors import Finding

Format = Literal["text", "json", "github", "sarif"]

_RED, _YELLOW, _BLUE, _BOLD, _PLAIN = "\x1b[1;31m", "\x1b[1;33m", "\x1b[1;34m", "\x1b[1m", "\x1b[0m"
_AT_KEY = ("unknown-key", "missing", "one-duration", "override-path", "override-index")
"""Codes about a key rather than its value."""


def report(findings: Sequence[Finding], document: Document, form: Format = "text", *, color: bool = False) -> str:
    """All findings in one of the formats."""
    match form:
        case "text":
            return render(findings, document, color=color)
        case "json":
            return json.dumps([_plain(each, document) for each in findings], ensure_ascii=False, indent=2)
        case "github":
            return "\n".join(_annotation(each, document) for each in findings)
        case "sarif":
            return json.dumps(_sarif(findings, document), ensure_ascii=False, indent=2)
        case _:
            assert_never(form)


def sort_key(document: Document) -> Callable[[Finding], tuple[int, int, int, str]]:
    """Order in which findings stand in the text; overrides come last, findings without a place by pointer."""

    def key(each: Finding) -> tuple[int, int, int, str]:
        found = locate(each, document)
        if found is None:
            return (len(document.sources), 0, 0, each.pointer)
        source, span = found
        return (-document.sources.index(source) if source.label != "override" else 1, span.line, span.column, each.pointer)

    return key


def locate(each: Finding, document: Document) -> tuple[Source, Span] | None:
    """The text and the stretch of it that a finding is about."""
    found = document.find(each.pointer)
    if found is None:
        return None
    source, place = found
    exact = source.places.get(each.pointer) is place
    return source, _span(each, place, exact)


def _span(each: Finding, place: Place, exact: bool) -> Span:
    if place.key is not None and (not exact or each.code in _AT_KEY):
        return place.key
    return place.value


def render(findings: Sequence[Finding], document: Document, color: bool = False) -> str:
    """Every finding as an excerpt of its text with line, column and caret, and a last line that counts them."""
    drawn = [_drawn(each, document, color) for each in findings]
    return "\n\n".join([*drawn, _count(findings)])


def _drawn(each: Finding, document: Document, color: bool) -> str:
    paint = _painter(color)
    tone = _RED if each.severity == "error" else _YELLOW
    head = f"{paint(tone, f'{each.severity}[{each.code}]')}: {paint(_BOLD, each.message)}"
    found = locate(each, document)
    if found is None:
        return "\n".join([head, f"  --> {each.pointer or '/'}", *_help(each, "  ")])
    source, span = found
    number = str(span.line)
    margin = " " * len(number)
    bar = paint(_BLUE, "|")
    line, column = _excerpt(_line(source.text, span.line), span.column)
    indent, carets = _under(line, column, span.length)
    return "\n".join(
        [
            head,
            f" {margin}{paint(_BLUE, '-->')} {source.name}:{span.line}:{span.column}",
            f" {margin} {bar}",
            f" {paint(_BLUE, number)} {bar} {_visible(line)}",
            f" {margin} {bar} {indent}{paint(tone, carets)} {each.hint or ''}".rstrip(),
            *_allowed(each, f" {margin} = "),
        ]
    )


def _painter(color: bool) -> Callable[[str, str], str]:
    return (lambda code, text: f"{code}{text}{_PLAIN}") if color else (lambda code, text: text)


def _help(each: Finding, margin: str) -> list[str]:
    return ([f"{margin}help: {each.hint}"] if each.hint else []) + _allowed(each, margin)


def _allowed(each: Finding, margin: str) -> list[str]:
    if not each.allowed or (each.hint is not None and each.allowed[-1] in each.hint and len(each.allowed) > 1):
        return []
    return [f"{margin}allowed: {', '.join(each.allowed)}"]


MAX_LINE = 160
"""Longest excerpt of a line, in characters."""


def _line(text: str, number: int) -> str:
    lines = text.split("\n")
    return lines[number - 1].rstrip("\r") if number <= len(lines) else ""


def _visible(line: str) -> str:
    """The start of a line with tabs as one space and without characters that would move the cursor."""
    shown = "".join(character if character.isprintable() else " " for character in line[:MAX_LINE])
    return shown + ("…" if len(line) > MAX_LINE else "")


def _excerpt(line: str, column: int) -> tuple[str, int]:
    """The part of a long line around a column, and where in it the column is."""
    start = max(0, column - 1 - MAX_LINE // 2)
    if len(line) <= MAX_LINE or start == 0:
        return line, column
    return "…" + line[start:], column - start + 1


def _under(line: str, column: int, length: int) -> tuple[str, str]:
    """Blanks and carets below an excerpt; wide characters take two columns."""
    before = line[: min(column - 1, MAX_LINE)]
    marked = line[column - 1 : column - 1 + length][: max(1, MAX_LINE - len(before))]
    return " " * _width(before), "^" * max(1, _width(marked))


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _count(findings: Sequence[Finding]) -> str:
    errors = sum(each.severity == "error" for each in findings)
    warnings = len(findings) - errors
    parts = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((errors, "error"), (warnings, "warning")) if n]
    return ", ".join(parts) or "no findings"


def _plain(each: Finding, document: Document) -> dict[str, object]:
    found = locate(each, document)
    place: dict[str, object] = {}
    if found is not None:
        source, span = found
        place = {"file": source.name, "line": span.line, "column": span.column, "length": span.length}
    return {**each.model_dump(mode="json", exclude_none=True), **place}


def _annotation(each: Finding, document: Document) -> str:
    """A GitHub workflow command."""
    found = locate(each, document)
    where = f"file={_property(found[0].name)},line={found[1].line},col={found[1].column}," if found else ""
    text = each.message + (f" — {each.hint}" if each.hint else "")
    return f"::{each.severity} {where}title={_property(each.code)}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _sarif(findings: Sequence[Finding], document: Document) -> dict[str, object]:
    """SARIF 2.1.0 (OASIS)."""
    rules = [{"id": code} for code in sorted({each.code for each in findings})]
    results = [_result(each, document) for each in findings]
    tool = {"driver": {"name": "stoker", "rules": rules}}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": tool, "results": results}],
    }


def _result(each: Finding, document: Document) -> dict[str, object]:
    text = each.message + (f" ({each.hint})" if each.hint else "")
    found = locate(each, document)
    places: list[object] = []
    if found is not None:
        source, span = found
        region = {"startLine": span.line, "startColumn": span.column, "endColumn": span.column + span.length}
        places = [{"physicalLocation": {"artifactLocation": {"uri": source.name}, "region": region}}]
    level = "error" if each.severity == "error" else "warning"
    return {"ruleId": each.code, "level": level, "message": {"text": text}, "locations": places}
