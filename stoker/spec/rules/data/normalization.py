"""Rules of `data.normalization`."""

from collections.abc import Iterator

from stoker.spec.data import reads_text
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule


@rule(
    "normalization-needs-numbers",
    reads=("/data/source", "/data/normalization"),
    message="`data.normalization` rescales numbers, and the source is text",
    hint="remove `data.normalization`",
)
def normalization_needs_numbers(case: Case) -> Iterator[Hit]:
    if reads_text(case.spec.data.source) and case.spec.data.normalization is not None:
        yield hit("/data/normalization")
