"""Which points count after retries, against a reference that plays the run step by step."""

from hypothesis import given
from hypothesis import strategies as st

from server.metrics.lineage import from_attempts

runs = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20), st.sampled_from(["resumed", "fresh", "never started"])), max_size=6
)


@given(runs)
def test_a_point_counts_when_no_later_attempt_trained_its_step_again(script: list[tuple[int, int, str]]) -> None:
    """Each attempt writes its epoch at every step from where it began; what stands at a step at the end is what counts."""
    board: dict[int, int] = {}
    attempts: list[tuple[int, int | None, int | None]] = []
    written: set[tuple[int, int]] = set()
    for epoch, (begin, length, how) in enumerate(script, start=1):
        if how == "never started":
            attempts.append((epoch, None, None))
            continue
        start = 0 if how == "fresh" else begin + 1
        attempts.append((epoch, begin, begin) if how == "resumed" else (epoch, None, 0))
        for step in [s for s in board if s >= start]:
            del board[step]
        for step in range(start, start + length):
            board[step] = epoch
            written.add((epoch, step))
    lineage = from_attempts(attempts)
    assert {(e, s) for e, s in written if s <= lineage.cutoff(e)} == {(e, s) for s, e in board.items()}


def test_the_digest_changes_when_something_is_superseded_and_only_then() -> None:
    one = from_attempts([(1, None, 0)])
    waiting = from_attempts([(1, None, 0), (2, None, None)])
    resumed = from_attempts([(1, None, 0), (2, 50, 50)])
    assert one.digest == waiting.digest
    assert resumed.digest != one.digest
