"""What a reader of logs sees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.logs.lines import MAX_LINE, Assembler, readable


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain", "plain"),
        (b"10%\r50%\r100%", "100%"),
        (b"100%\r", "100%"),
        (b"windows\r", "windows"),
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07text", "text"),
        (b"\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1bPdevice\x1b\\rest", "rest"),
        (b"a\x00b\x07c\x7f", "abc"),
        (b"tab\tstays", "tab\tstays"),
        (b"bad \xff utf-8", "bad \ufffd utf-8"),
        ("rtl \u202eevil".encode(), "rtl evil"),
        ("csi \x9b31mred".encode(), "csi red"),
        ("caf\u00e9 \u706b".encode(), "caf\u00e9 \u706b"),
        (b"\x1b[", ""),
        (b"", ""),
        (b"<script>alert(1)</script>", "<script>alert(1)</script>"),
    ],
)
def test_a_line_reads_as_a_terminal_would_leave_it(raw: bytes, shown: str) -> None:
    assert readable(raw) == shown


@given(st.binary(max_size=300))
def test_nothing_that_a_terminal_acts_on_is_left(raw: bytes) -> None:
    text = readable(raw)
    assert all(c == "\t" or (ord(c) >= 32 and not 0x7F <= ord(c) < 0xA0) for c in text)
    assert "\n" not in text


@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 60)), max_size=10))
def test_chunks_that_repeat_or_overlap_give_each_line_once(data: bytes, extra: list[tuple[int, int]]) -> None:
    """Chunks cover the output in order, with repeats of what came before in between."""
    assembler, lines, at = Assembler(), list[bytes](), 0
    for back, size in [*extra, (0, 1000)]:
        start = max(0, at - back)
        piece = data[start : max(at, start) + size]
        lines += assembler.feed(start, piece)
        at = max(at, start + len(piece))
    lines += assembler.flush()
    expected = data.split(b"\n")
    assert lines == (expected[:-1] if expected[-1] == b"" else expected)


def test_a_gap_ends_a_line() -> None:
    assembler = Assembler()
    assert list(assembler.feed(0, b"one\ntwo")) == [b"one"]
    assert list(assembler.feed(100, b"lost before\n")) == [b"two", b"lost before"]


def test_a_line_that_never_ends_is_cut() -> None:
    assembler = Assembler()
    lines = [line for at in range(5) for line in assembler.feed(at * 400_000, b"x" * 400_000)]
    lines += assembler.flush()
    assert len(lines) == 2
    assert sum(map(len, lines)) == 2_000_000
    assert max(map(len, lines)) <= MAX_LINE + 400_000


def test_reading_from_the_middle_begins_with_a_whole_line() -> None:
    assembler = Assembler(skip_first=True)
    assert list(assembler.feed(10, b"rest of a line\nwhole\nopen")) == [b"whole"]
    assert list(assembler.flush()) == [b"open"]
