"""What retention lets go, for any set of checkpoints and any policy."""

import math

from hypothesis import given
from hypothesis import strategies as st

from server.checkpoints.retention import Kept, superfluous
from stoker.spec.checkpoint import Checkpoint as Policy

values = st.one_of(st.none(), st.floats(-10, 10), st.just(math.nan), st.just(math.inf))
sets = st.dictionaries(st.integers(0, 40), st.tuples(values, st.booleans()), max_size=15).map(
    lambda d: [Kept(f"c{step}", step, final, value) for step, (value, final) in d.items()]
)
policies = st.builds(Policy, keep_last=st.integers(2, 5), keep_best=st.integers(0, 3))


@given(sets, policies, st.sampled_from(["min", "max"]), st.frozensets(st.integers(0, 40), max_size=3))
def test_what_is_promised_is_kept_and_nothing_else(
    checkpoints: list[Kept], policy: Policy, mode: str, pinned: frozenset[int]
) -> None:
    gone = set(superfluous(checkpoints, policy, mode, pinned))
    steps = sorted(c.step for c in checkpoints)
    finite = [c.value for c in checkpoints if c.value is not None and math.isfinite(c.value)]
    for c in checkpoints:
        among_last = c.step in steps[-policy.keep_last :]
        measured = c.value is not None and math.isfinite(c.value)
        better = sum(1 for v in finite if measured and c.value is not None and (v < c.value if mode == "min" else v > c.value))
        earlier_equals = sum(1 for o in checkpoints if measured and o.value == c.value and o.step < c.step)
        among_best = measured and better + earlier_equals < policy.keep_best
        assert (c.id in gone) is not (among_last or among_best or c.final or c.step in pinned)
    assert len(checkpoints) - len(gone) >= min(2, len(checkpoints))
