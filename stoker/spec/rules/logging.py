"""Rules of `logging`."""

from collections.abc import Iterator

from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule


@rule(
    "sink-twice",
    reads=("/logging/sinks",),
    message="sink {sink} stands in the list twice",
    hint="remove one",
)
def sink_twice(case: Case) -> Iterator[Hit]:
    seen: set[str] = set()
    for index, sink in enumerate(case.spec.logging.sinks):
        if sink.type in seen:
            yield hit(f"/logging/sinks/{index}", sink=sink.type)
        seen.add(sink.type)
