"""JSON with positions. The value is read by the C scanner; places are found by a second walk, only when a message needs them."""

import json
import re

from stoker.document.document import Place, Span, escaped
from stoker.document.rejected import Rejected
from stoker.document.strict_json import JsonRejected, JsonValue, strict_json

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_ATOM = re.compile(r"[^\s,\]}]+")


def read_json(text: str) -> JsonValue:
    """The value of a JSON text. Raises Rejected."""
    try:
        return strict_json(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise Rejected("json-invalid-unicode", "the text holds half of a surrogate pair") from None
    except JsonRejected as error:
        raise Rejected(error.code.replace("_", "-"), error.detail, error.line or 1, error.column or 1) from None


def json_places(text: str) -> dict[str, Place]:
    """The place of every value in a text that `read_json` accepted."""
    walk = _Walk(text)
    walk.value("", None)
    return walk.places


class _Walk:
    """A recursive descent that trusts its text; depth is bounded by the reader."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self._line = 0
        self.places: dict[str, Place] = {}

    def value(self, pointer: str, key: Span | None) -> None:
        self._space()
        start = self._at
        opening = self._text[start : start + 1]
        if opening == '"':
            self.places[pointer] = Place(self._token(_STRING), key)
        elif opening in ("{", "["):
            self.places[pointer] = Place(self._span(start, start + 1), key)
            self._at += 1
            self._members(pointer) if opening == "{" else self._items(pointer)
        else:
            self.places[pointer] = Place(self._token(_ATOM), key)

    def _members(self, pointer: str) -> None:
        while self._more("}"):
            start = self._at
            span = self._token(_STRING)
            name = json.loads(self._text[start : self._at])
            self._space()
            self._at += 1  # the colon
            self.value(f"{pointer}/{escaped(name)}", span)

    def _items(self, pointer: str) -> None:
        index = 0
        while self._more("]"):
            self.value(f"{pointer}/{index}", None)
            index += 1

    def _more(self, closing: str) -> bool:
        self._space()
        if self._text[self._at] == ",":
            self._at += 1
            self._space()
        if self._text[self._at] != closing:
            return True
        self._at += 1
        return False

    def _space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _token(self, pattern: re.Pattern[str]) -> Span:
        match = pattern.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._span(match.start(), match.end())

    def _span(self, start: int, end: int) -> Span:
        while self._line + 1 < len(self._lines) and self._lines[self._line + 1] <= start:
            self._line += 1
        return Span(self._line + 1, start - self._lines[self._line] + 1, end - start)
