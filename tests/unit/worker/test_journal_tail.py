"""The tail of a journal yields each whole line once, however the writes are cut."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.events import Metrics, Progress
from worker.agent.journal import LONGEST_LINE, JournalTail


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(0, 40), cuts=st.lists(st.integers(0, 4000), max_size=20))
def test_lines_cut_anywhere_arrive_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, count: int, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "events-rank0.jsonl"
    lines = [json.dumps({"type": "metrics", "step": i, "values": {"train/loss": 1 / (i + 1)}, "t": 0.0}) for i in range(count)]
    text = "".join(line + "\n" for line in lines).encode()
    tail, seen = JournalTail(path), []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(text)], strict=True):
        with path.open("ab") as out:
            out.write(text[start:end])
        seen += list(tail.read())
    assert [event.step for event in seen if isinstance(event, Metrics)] == list(range(count))
    assert tail.damaged == 0


def test_a_missing_journal_is_an_empty_one(tmp_path: Path) -> None:
    assert list(JournalTail(tmp_path / "none").read()) == []


def test_damaged_and_endless_lines_are_counted_and_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events-rank0.jsonl"
    good = b'{"type": "progress", "step": 1, "epoch": 0.5, "samples": 8, "tokens": 0}\n'
    path.write_bytes(b"\xff\x00\n" + good + b'{"type": "of the future"}\n' + b"x" * (LONGEST_LINE + 10) + b"\n" + good)
    tail = JournalTail(path)
    assert [type(event) for event in tail.read()] == [Progress, Progress]
    assert tail.damaged == 3


def test_numbers_that_are_none_pass(tmp_path: Path) -> None:
    path = tmp_path / "events-rank0.jsonl"
    path.write_text('{"type": "metrics", "step": 1, "values": {"a/b": NaN, "a/c": -Infinity}, "t": 0}\n')
    (event,) = JournalTail(path).read()
    assert isinstance(event, Metrics)
    assert event.values["a/b"] != event.values["a/b"]
    assert event.values["a/c"] == float("-inf")
