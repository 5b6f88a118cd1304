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


@given(st.lists(st.tuples(st.sampled_from(["step", "back", "resume"]), st.integers(0, 12)), max_size=25))
def test_a_stretch_that_a_run_trained_again_by_itself_counts_once(script: list[tuple[str, int]]) -> None:
    """One frame per move: a step further, a step back in the same attempt, or a new attempt from a step."""
    attempts: list[tuple[int, int | None, int | None]] = [(1, None, 0)]
    rewinds: dict[int, list[list[int]]] = {}
    board: dict[int, tuple[int, int]] = {}
    written: set[tuple[int, int, int]] = set()
    epoch, at = 1, 0
    for seq, (move, far) in enumerate(script, start=1):
        if move == "step":
            at += 1
            board[at] = (epoch, seq)
            written.add((epoch, seq, at))
            continue
        at = min(at, far)
        board = {step: who for step, who in board.items() if step <= at}
        if move == "back":
            rewinds.setdefault(epoch, []).append([seq, at])
        else:
            epoch += 1
            attempts.append((epoch, at or None, at))
    lineage = from_attempts(attempts, rewinds)
    assert {(s, (e, f)) for e, f, s in written if s <= lineage.cutoff(e, f)} == set(board.items())
    assert (lineage.digest == from_attempts(attempts).digest) is not bool(rewinds)
