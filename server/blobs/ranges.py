"""Which bytes of a file a request asks for (RFC 9110, section 14): one range, or the whole."""

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)


@dataclass(frozen=True)
class Span:
    """Bytes `[start, stop)` of `size`; `partial` when they were asked for by range."""

    start: int
    stop: int
    size: int
    partial: bool

    @property
    def content_range(self) -> str:
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


class Unsatisfiable(Exception):
    """416: the range begins beyond the end, or asks for the last zero bytes."""


def span_of(header: str | None, if_range: str | None, etag: str, size: int) -> Span:
    """The bytes to answer with. Raises Unsatisfiable.

    What is no single byte range (another unit, several ranges, an end before its start) is ignored, as the RFC allows; so
    is a range whose If-Range names other bytes than these.
    """
    whole = Span(0, size, size, partial=False)
    asked = _RANGE.fullmatch(header.strip(" \t")) if header else None
    if asked is None or (if_range is not None and if_range.strip(" \t") != etag):
        return whole
    first, last = asked.group(1), asked.group(2)
    if not first and not last:
        return whole
    if not first:
        return _suffix(_number(last), size)
    start, end = _number(first), _number(last) if last else size - 1
    if last and _order(last) < _order(first):
        return whole
    if start >= size:
        raise Unsatisfiable
    return Span(start, min(end + 1, size), size, partial=True)


def _suffix(length: int, size: int) -> Span:
    if length == 0 or size == 0:
        raise Unsatisfiable
    return Span(max(0, size - length), size, size, partial=True)


def _order(digits: str) -> tuple[int, str]:
    """Sorts numbers of any length by value."""
    digits = digits.lstrip("0")
    return len(digits), digits


def _number(digits: str) -> int:
    """Its value, or one beyond any file: a client may send thousands of digits."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= 18 else 10**18
