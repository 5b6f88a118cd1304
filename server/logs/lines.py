"""Raw output as lines to read: what a terminal would show at the end, without what a terminal would do."""

import re
from collections.abc import Iterator

_ESCAPE = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: titles, links
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"  # DCS and other strings
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
MAX_LINE = 1 << 20
"""Bytes after which a line that does not end is cut in two."""


def readable(line: bytes) -> str:
    """One line without its end: `\\r` collapsed to the last state, escapes and controls gone, bad UTF-8 as U+FFFD."""
    text = _ESCAPE.sub("", line.decode("utf-8", "replace"))
    states = [state for state in text.split("\r") if state]
    return _CONTROL.sub("", states[-1]) if states else ""


class Assembler:
    """Chunks of one rank's stream to whole lines."""

    def __init__(self, *, skip_first: bool = False) -> None:
        self._rest = b""
        self._skipping = skip_first
        self._end: int | None = None

    def feed(self, offset: int, data: bytes) -> Iterator[bytes]:
        """Lines that the chunk completes. What an earlier chunk held already is left out; after a gap a new line begins."""
        end = offset if self._end is None else self._end
        if offset > end and self._rest:
            yield self._rest
            self._rest = b""
        self._end = max(end, offset + len(data))
        data = data[max(0, end - offset) :]
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not self._skipping:
                yield line
            self._skipping = False
        if len(self._rest) > MAX_LINE:
            yield self._rest
            self._rest = b""

    def flush(self) -> Iterator[bytes]:
        """What is left of a line that never ended."""
        if self._rest and not self._skipping:
            yield self._rest
        self._rest = b""
