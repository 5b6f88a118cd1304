"""TOML 1.0 with positions. The value is read by `tomllib`; places are found by a second walk, only when a message needs them."""

import re
import tomllib
from bisect import bisect_right
from datetime import date, time

from stoker.document.document import Place, Span, escaped
from stoker.document.rejected import MAX_WRITTEN, Rejected
from stoker.document.strict_json import INT64, MAX_DEPTH, JsonValue

_POSITION = re.compile(r"\(at line (\d+), column (\d+)\)")
_SKIP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_STRING = re.compile(r'''"""(?s:(?:[^"\\]|\\.|"{1,2}(?!"))*)"{3,5}|\'\'\'(?s:.*?)\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'''')
_ATOM = re.compile(r"[^\s,\]}#]+(?: [0-9:.+Z-]+)?")
_KEY = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-])(?:{_KEY}\.[ \t]*+){{{MAX_DEPTH + 1}}}")
"""A dotted key of so many parts that reading it would take long."""
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def read_toml(text: str) -> dict[str, JsonValue]:
    """The value of a TOML text. Raises Rejected."""
    if _LONG_KEY.search(text):
        raise Rejected("too-deep", f"nested deeper than {MAX_DEPTH} levels")
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _POSITION.search(str(error))
        position = (int(found[1]), int(found[2])) if found else (text.rstrip("\n").count("\n") + 1, 1)
        what = str(error).partition(" (at")[0].lower() if len(str(error)) < 120 else "unreadable"
        raise Rejected("toml-invalid", f"not TOML: {what}", *position) from None
    except RecursionError:
        raise Rejected("too-deep", f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError:
        raise Rejected("number-out-of-range", "an integer must fit 64 bits") from None
    _check(value)
    return value


def _check(value: dict[str, JsonValue]) -> None:
    pending: list[tuple[JsonValue, int]] = [(value, 1)]
    seen = 0
    while pending:
        item, depth = pending.pop()
        seen += 1
        if isinstance(item, dict | list):
            if depth > MAX_DEPTH:
                raise Rejected("too-deep", f"nested deeper than {MAX_DEPTH} levels")
            pending.extend((inner, depth + 1) for inner in (item.values() if isinstance(item, dict) else item))
        else:
            _check_scalar(item)
    if seen > MAX_WRITTEN:
        raise Rejected("too-many-values", f"more than {MAX_WRITTEN} values")


def _check_scalar(item: JsonValue) -> None:
    if isinstance(item, date | time):
        raise Rejected("toml-date", "no field takes a date; quote it to make it a string")
    if isinstance(item, float) and item - item != 0:
        raise Rejected("non-finite", "NaN and infinity are not allowed")
    if isinstance(item, int) and not INT64[0] <= item <= INT64[1]:
        raise Rejected("number-out-of-range", "an integer must fit 64 bits")


def toml_places(text: str) -> dict[str, Place]:
    """The place of every value in a text that `read_toml` accepted."""
    return _Walk(text).document()


class _Walk:
    """A recursive descent that trusts its text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self._at = 0
        self._table = ""
        self._counts: dict[str, int] = {}
        self.places: dict[str, Place] = {"": Place(Span(1, 1, 1))}

    def document(self) -> dict[str, Place]:
        self._skip(_SKIP)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                self._header()
            else:
                self._pair(self._table)
            self._skip(_SKIP)
        return self.places

    def _header(self) -> None:
        array = self._text.startswith("[[", self._at)
        self._at += 2 if array else 1
        pointer, span = self._key("")
        self._at += 2 if array else 1
        if array:
            self.places.setdefault(pointer, Place(span, span))
            count = self._counts[pointer] = self._counts.get(pointer, -1) + 1
            pointer = f"{pointer}/{count}"
        self.places[pointer] = Place(span, span)
        self._table = pointer

    def _pair(self, table: str) -> None:
        pointer, span = self._key(table)
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(pointer, span)

    def _key(self, pointer: str) -> tuple[str, Span]:
        """A dotted key below a pointer; every part on the way gets a place, the last of several arrays is meant."""
        while True:
            self._skip(_BLANK)
            start = self._at
            self._skip(_PART)
            part = self._text[start : self._at]
            name = part if _BARE.fullmatch(part) else next(iter(tomllib.loads(f"{part}=0")))
            pointer = f"{pointer}/{escaped(name)}"
            span = self._span(start, self._at)
            self._skip(_BLANK)
            if self._text[self._at] != ".":
                return pointer, span
            self.places.setdefault(pointer, Place(span, span))
            if pointer in self._counts:
                pointer = f"{pointer}/{self._counts[pointer]}"
            self._at += 1

    def _value(self, pointer: str, key: Span | None) -> None:
        start = self._at
        opening = self._text[start]
        if opening in "[{":
            self.places[pointer] = Place(self._span(start, start + 1), key)
            self._at += 1
            self._array(pointer) if opening == "[" else self._inline(pointer)
            return
        self._skip(_STRING if opening in "\"'" else _ATOM)
        self.places[pointer] = Place(self._span(start, self._at), key)

    def _array(self, pointer: str) -> None:
        index = 0
        while self._more("]"):
            self._value(f"{pointer}/{index}", None)
            index += 1

    def _inline(self, pointer: str) -> None:
        while self._more("}"):
            self._pair(pointer)

    def _more(self, closing: str) -> bool:
        self._skip(_SKIP)
        if self._text[self._at] == ",":
            self._at += 1
            self._skip(_SKIP)
        if self._text[self._at] != closing:
            return True
        self._at += 1
        return False

    def _skip(self, pattern: re.Pattern[str]) -> None:
        if match := pattern.match(self._text, self._at):
            self._at = match.end()

    def _span(self, start: int, end: int) -> Span:
        line = bisect_right(self._lines, start)
        column = start - self._lines[line - 1] + 1
        first_line = self._text.find("\n", start, end)
        return Span(line, column, max(1, (end if first_line < 0 else first_line) - start))
