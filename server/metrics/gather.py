"""Points of many stored chunks as one array per key, without a Python step per chunk but for grouping."""

import json
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from server.metrics.lineage import Lineage
from server.metrics.packed import Floats, Ints
from stoker.frames import MISSING_BITS

Pieces = dict[str, tuple[list[Ints], list[Floats]]]


def gather(rows: Sequence[Any], lineage: Lineage, wanted: set[str], first: int, last: int | None) -> Pieces:
    """Per key the steps and values that count and lie in [first, last], in the order in which they were reported.

    `rows` have the fields of `store.Chunk`. Keys without any point are left out.
    """
    found: Pieces = {}
    for cutoff, keys, counts, packed in _runs(rows, lineage):
        if wanted and wanted.isdisjoint(keys):
            continue
        upto = min(cutoff, math.inf if last is None else last)
        columns = _columns(counts, packed, len(keys))
        steps = next(columns)
        inside = (steps >= first) & (steps <= upto)
        for key, raw in zip(keys, columns, strict=True):
            if wanted and key not in wanted:
                continue
            kept = inside & (raw != MISSING_BITS)
            if not kept.any():
                continue
            pieces = found.setdefault(key, ([], []))
            whole = bool(kept.all())
            pieces[0].append(steps if whole else steps[kept])
            pieces[1].append((raw if whole else raw[kept]).view("<f8"))
    return found


Run = tuple[float, list[str], Sequence[int], Sequence[bytes]]
"""The last step that counts, keys, and the rows and payloads of chunks one after another that have these in common."""


def _runs(rows: Sequence[Any], lineage: Lineage) -> Iterator[Run]:
    """What is the same for thousands of chunks is looked at once for each run of them."""
    if not rows:
        return
    epochs, seqs, _, counts, keys, packed = zip(*rows, strict=True)
    cutoffs = [lineage.cutoff(*each) for each in zip(epochs, seqs, strict=True)] if lineage.rewinds else epochs
    at = 0
    for (mark, text), run in groupby(zip(cutoffs, keys, strict=True)):
        end = at + len(list(run))
        yield mark if lineage.rewinds else lineage.cutoff(mark), json.loads(text), counts[at:end], packed[at:end]
        at = end


def _columns(counts: Sequence[int], packed: Sequence[bytes], keys: int) -> Iterator[Ints]:
    """Steps, then the bits of each key's values, of chunks with the same keys one after another."""
    words = np.frombuffer(b"".join(packed), "<i8")
    rows = np.array(counts)
    if bool((rows == rows[0]).all()):
        table = words.reshape(len(counts), 1 + keys, rows[0])
        for column in range(1 + keys):
            yield np.ascontiguousarray(table[:, column]).reshape(-1)
        return
    begins = np.concatenate(([0], np.cumsum(rows * (1 + keys))[:-1]))
    before = np.concatenate(([0], np.cumsum(rows)[:-1]))
    at, length = np.repeat(begins - before, rows) + np.arange(rows.sum()), np.repeat(rows, rows)
    for column in range(1 + keys):
        yield words[at + column * length]
