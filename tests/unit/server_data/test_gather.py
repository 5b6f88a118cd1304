"""Points of many chunks, gathered at once, against one at a time in plain Python."""

import json
import math
import struct

from hypothesis import given
from hypothesis import strategies as st

from server.metrics.gather import gather
from server.metrics.lineage import Lineage
from server.metrics.store import Chunk
from stoker.frames import MISSING, MISSING_BITS, pack_metrics

values = st.one_of(st.just(MISSING), st.just(math.nan), st.floats(-5, 5))
chunk = st.tuples(
    st.integers(1, 3),
    st.sampled_from([("a",), ("a", "b"), ("b",), ("b", "a")]),
    st.lists(st.tuples(st.integers(0, 20), values, values), min_size=1, max_size=4),
)


def bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


@given(
    st.lists(chunk, max_size=8),
    st.dictionaries(st.integers(1, 3), st.integers(-1, 20)),
    st.sets(st.sampled_from("ab")),
    st.dictionaries(st.integers(1, 3), st.lists(st.tuples(st.integers(1, 9), st.integers(0, 20)), max_size=2)),
    st.integers(0, 10),
    st.one_of(st.none(), st.integers(5, 20)),
)
def test_every_point_that_counts_and_no_other(
    chunks: list[tuple[int, tuple[str, ...], list[tuple[int, float, float]]]],
    cutoffs: dict[int, int],
    wanted: set[str],
    rewinds: dict[int, list[tuple[int, int]]],
    first: int,
    last: int | None,
) -> None:
    chunks = sorted(chunks, key=lambda c: c[0])
    rows, expected = [], dict[str, list[tuple[int, int]]]()
    for seq, (epoch, keys, points) in enumerate(chunks, start=1):
        columns = {key: [point[1 + at] for point in points] for at, key in enumerate(keys)}
        packed = pack_metrics([point[0] for point in points], columns)
        rows.append(Chunk(epoch, seq, max(point[0] for point in points), len(points), json.dumps(keys), packed))
        for at, key in enumerate(keys):
            for point in points:
                counts = point[0] <= cutoffs.get(epoch, math.inf) and first <= point[0] <= (math.inf if last is None else last)
                counts = counts and all(point[0] <= step for frame, step in rewinds.get(epoch, ()) if seq < frame)
                if counts and bits(point[1 + at]) != MISSING_BITS and (not wanted or key in wanted):
                    expected.setdefault(key, []).append((point[0], bits(point[1 + at])))
    found = gather(rows, Lineage(dict(cutoffs), rewinds), wanted, first, last)
    got = {
        key: [(int(s), bits(float(v))) for steps, vals in zip(*pieces, strict=True) for s, v in zip(steps, vals, strict=True)]
        for key, pieces in found.items()
    }
    assert got == expected
