"""Ranges against a reference written from RFC 9110 with explicit sets of byte positions."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.blobs.ranges import Unsatisfiable, span_of

ETAG = '"abc"'


def reference(header: str, size: int) -> range | str:
    """The positions that a single valid byte range selects, by filtering all of them; or what to do instead."""
    unit, _, spec = header.partition("=")
    if unit.lower() != "bytes" or "," in spec or spec.count("-") != 1:
        return "ignore"
    first, last = spec.strip().split("-")
    if any(part and not (part.isascii() and part.isdigit()) for part in (first, last)) or not (first or last):
        return "ignore"
    if not first:
        chosen = [p for p in range(size) if p >= size - int(last)]
    elif last and int(last) < int(first):
        return "ignore"
    else:
        chosen = [p for p in range(size) if p >= int(first) and (not last or p <= int(last))]
    return range(chosen[0], chosen[-1] + 1) if chosen else "416"


number = st.one_of(st.just(""), st.integers(0, 30).map(str), st.integers(10**20, 10**21).map(str))
headers = st.one_of(
    st.builds("bytes={}-{}".format, number, number),
    st.builds("BYTES= {}-{} ".format, number, number),
    st.sampled_from(["bytes=0-1,3-4", "items=0-1", "bytes", "bytes=", "bytes=a-b", "bytes=--1", "bytes=1--", "bytes=²-3"]),
)


@given(headers, st.integers(0, 25))
@example("bytes=0-0", 1)
@example("bytes=-0", 5)
@example("bytes=" + "9" * 5000 + "-", 5)
@example("bytes=-" + "9" * 5000, 5)
def test_every_single_range_selects_the_bytes_that_the_rfc_says(header: str, size: int) -> None:
    beyond_python = len(header) > 4000  # the reference could not read the number
    expected = ("416" if header.endswith("-") else range(size)) if beyond_python else reference(header, size)
    if expected == "416":
        with pytest.raises(Unsatisfiable):
            span_of(header, None, ETAG, size)
        return
    span = span_of(header, None, ETAG, size)
    if expected == "ignore":
        assert (span.start, span.stop, span.partial) == (0, size, False)
    else:
        assert span.partial
        assert range(span.start, span.stop) == expected
        assert span.content_range == f"bytes {span.start}-{span.stop - 1}/{size}"


@pytest.mark.parametrize(
    ("if_range", "partial"), [(None, True), (ETAG, True), ('"other"', False), (f"W/{ETAG}", False), ("", False)]
)
def test_a_range_holds_only_for_the_bytes_it_was_asked_of(if_range: str | None, partial: bool) -> None:
    assert span_of("bytes=0-0", if_range, ETAG, 5).partial is partial
