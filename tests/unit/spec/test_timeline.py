"""Steps, samples and epochs under changing batch sizes, against a walk through the samples one step at a time."""

from hypothesis import given
from hypothesis import strategies as st

from stoker.spec.base import Duration
from stoker.spec.derived.arithmetic import steps_per_epoch
from stoker.spec.derived.timeline import Timeline

STEPS = 60
cases = st.tuples(
    st.integers(1, 30),
    st.integers(1, 30),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), max_size=4),
)


def walked(samples: int, size: int, drop: bool, changes: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(epoch, first sample, one after the last) of each step."""
    found, epoch, at = [], 0, 0
    for step in range(STEPS):
        for when, new in changes:
            size = new if when == step else size
        left = samples - at
        if left == 0 or (drop and left < size):
            epoch, at, left = epoch + 1, 0, samples
        found.append((epoch, at, at + min(size, left)))
        at += min(size, left)
    return found


@given(cases)
def test_every_step_takes_the_next_samples(case: tuple[int, int, bool, list[tuple[int, int]]]) -> None:
    samples, size, drop, changes = case
    size = min(size, samples) if drop else size
    changes = sorted({when: min(new, samples) if drop else new for when, new in changes}.items())
    timeline, expected = Timeline(samples, size, drop), walked(samples, size, drop, changes)
    for when, new in changes:
        timeline.change(when, new)
    taken = 0
    for step, (epoch, begin, end) in enumerate(expected):
        where = timeline.place(step)
        assert (where.epoch, where.offset, min(where.offset + where.size, where.end)) == (epoch, begin, end), step
        assert timeline.samples_after(step) == taken
        taken += end - begin
        assert (timeline.begins_epoch(step) is not None) == (begin == 0)
    for epochs in range(1, expected[-1][0] + 1):
        assert timeline.steps_of_epochs(epochs) == next(s for s, e in enumerate(expected) if e[0] >= epochs)
    for count in (1, taken // 2, taken):
        steps = timeline.steps_of_samples(count)
        assert timeline.samples_after(steps) >= count > timeline.samples_after(steps - 1) or count == 0
    again = Timeline(samples, size, drop)
    again.restore([list(segment) for segment in timeline.segments])
    assert [again.place(step) for step in range(STEPS)] == [timeline.place(step) for step in range(STEPS)]


@given(st.integers(1, 50), st.integers(1, 50), st.booleans(), st.integers(0, 200))
def test_without_a_change_it_is_what_arithmetic_says(samples: int, size: int, drop: bool, step: int) -> None:
    size = min(size, samples) if drop else size
    timeline, per_epoch = Timeline(samples, size, drop), steps_per_epoch(samples, size, drop)
    where = timeline.place(step)
    assert (where.segment, where.epoch, where.begin, where.at) == (0, step // per_epoch, 0, step % per_epoch)
    assert timeline.epochs_after(step) == step / per_epoch
    assert timeline.steps_of(Duration(epochs=3), 0) == 3 * per_epoch
    used = per_epoch * size if drop else samples
    assert timeline.samples_after(step) == step // per_epoch * used + min(step % per_epoch * size, used)
