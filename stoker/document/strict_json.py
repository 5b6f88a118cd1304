"""JSON as Stoker accepts it: UTF-8, no NaN, no duplicate keys, no number or nesting that some reader would not survive (RFC 8259, I-JSON RFC 7493).

The C scanner of the standard library does the work. Before it runs, one pass of regular expressions over the bytes decides
the depth, the number of values and whether any number is suspicious, so ordinary bodies pay for no call per number.
"""

import json
import re
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, NoReturn

from stoker.errors import StokerError

MAX_DEPTH = 32
"""Deepest nesting of arrays and objects."""
MAX_VALUES = 100_000
"""Most values, containers included, in one document."""
INT64 = (-(2**63), 2**63 - 1)

JsonValue = Any
"""None, bool, int, float, str, list or dict of those: recursive, so not worth spelling for mypy."""

_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_SUSPICIOUS = re.compile(rb"[0-9]{19}|[eE][+-]?[0-9]{3}|[NI]|-0")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class JsonRejected(StokerError):
    """The text is not JSON that Stoker reads; `code` is published, `detail` never quotes the input."""

    exit_code = 2

    def __init__(self, code: str, detail: str, line: int | None = None, column: int | None = None) -> None:
        self.code = code
        self.detail = detail
        self.line = line
        """1-based, where it is known."""
        self.column = column
        super().__init__(detail)


def strict_json(data: bytes, *, max_depth: int = MAX_DEPTH, max_values: int = MAX_VALUES) -> JsonValue:
    """The value of a JSON text.

    Raises JsonRejected with code json_invalid, json_not_utf8, json_bom, json_too_deep, json_too_many_values,
    json_duplicate_key, json_non_finite, json_number_out_of_range, json_nul or json_invalid_unicode.
    """
    text = _decoded(data)
    bare = _STRINGS.sub(b'""', data)
    _check_shape(bare, max_depth, max_values)
    decode = _CAREFUL.decode if _SUSPICIOUS.search(bare) else _FAST.decode
    value = _parsed(decode, text)
    if b"\\u0000" in data or _SURROGATE.search(data):
        _check_strings(value)
    return value


def _decoded(data: bytes) -> str:
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise JsonRejected("json_bom", "the text starts with a byte order mark; send UTF-8 without one", 1, 1)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonRejected("json_not_utf8", f"byte {error.start} is not valid UTF-8") from None


def _check_shape(bare: bytes, max_depth: int, max_values: int) -> None:
    brackets = bare.translate(None, _NOT_BRACKETS)
    deepest = max(accumulate(map(_STEP.__getitem__, brackets)), default=0) if len(brackets) > max_depth else 0
    if deepest > max_depth:
        raise JsonRejected("json_too_deep", f"nested deeper than {max_depth} levels")
    if bare.count(b",") + len(brackets) // 2 + 1 > max_values:
        raise JsonRejected("json_too_many_values", f"more than {max_values} values")


def _parsed(decode: Callable[[str], JsonValue], text: str) -> JsonValue:
    try:
        return decode(text)
    except json.JSONDecodeError as error:
        raise JsonRejected("json_invalid", f"not JSON: {error.msg}", error.lineno, error.colno) from None
    except RecursionError:
        raise JsonRejected("json_too_deep", "nested too deeply") from None


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise JsonRejected("json_duplicate_key", "an object holds the same key twice")
    return made


def _integer(digits: str) -> int | float:
    if len(digits) > 20 or not INT64[0] <= int(digits) <= INT64[1]:
        raise JsonRejected("json_number_out_of_range", "an integer does not fit 64 bits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if number - number != 0:
        raise JsonRejected("json_number_out_of_range", "a number does not fit a 64-bit float")
    return number + 0.0


def _constant(name: str) -> NoReturn:
    raise JsonRejected("json_non_finite", "NaN and Infinity are not JSON; send null or the string")


_FAST = json.JSONDecoder(object_pairs_hook=_unique)
_CAREFUL = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer, parse_float=_float, parse_constant=_constant)


def strings(value: JsonValue) -> Iterator[str]:
    """Every string in a value, keys included."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            yield from item
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _check_strings(value: JsonValue) -> None:
    for text in strings(value):
        if "\0" in text:
            raise JsonRejected("json_nul", "a string holds the character U+0000")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise JsonRejected("json_invalid_unicode", "a string holds half of a surrogate pair")
