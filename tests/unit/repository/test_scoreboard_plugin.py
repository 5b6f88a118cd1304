"""The scoreboard's verdicts, from outcomes that are given."""

from tests.support.scoreboard import Outcomes, rows, table, unproven

PROMISES = "id,en\nA-01,First\nA-02,Second\nA-03,Third\nA-04,Fourth\nA-05,Fifth\nA-06,Sixth\n"
KEPT = {
    "A-01": {"path": "x", "tests": ["t.py::test_a", "t.py::test_b[1]"]},
    "A-02": {"path": "y", "tests": ["t.py::test_c"]},
    "A-03": {"path": "z", "tests": ["t.py::test_d"]},
    "A-06": {"path": "z", "tests": ["tests/images/t.py::test_e"]},
    "owed": {"A-04": "needs hardware that is not here"},
}


def outcomes(**found: str) -> Outcomes:
    heard = Outcomes()
    for test, outcome in {"test_a[x@1]": "passed", "test_a[2]": "passed", "test_b[1]": "passed", "test_c": "failed"}.items():
        heard.hear(f"t.py::{test}@integration/t.py", outcome)
    for test, outcome in found.items():
        heard.hear(f"t.py::{test}", outcome)
    return heard


def test_each_row_says_how_it_went() -> None:
    lines = [" ".join(line.split()) for line in table(rows(PROMISES, KEPT), outcomes())]
    assert lines == [
        "A-01 First pass",
        "A-02 Second FAIL",
        "A-03 Third did not run: t.py::test_d",
        "A-04 Fourth owed: needs hardware that is not here",
        "A-05 Fifth not on the scoreboard",
        "A-06 Sixth with its image: make horovod-test, make xla-test",
    ]


def test_a_row_is_proven_by_tests_that_ran() -> None:
    said = rows(PROMISES, KEPT)
    assert unproven(said, outcomes()) == ["A-03 did not run: t.py::test_d"]
    assert unproven(said, outcomes(test_d="skipped")) == ["A-03 skipped"]
    assert unproven(said, outcomes(test_d="passed")) == []


def test_a_row_may_be_left_to_the_thorough_run() -> None:
    said = rows(PROMISES, KEPT)
    heard = outcomes()
    heard.left = {"t.py::test_d[1]"}
    assert heard.verdict(said[2]) == "left to make test-all"
    assert unproven(said, heard) == []
    heard.left = {"t.py::test_b[1]", "t.py::test_d[1]"}
    assert heard.verdict(said[0]) == "pass", "a test that ran is judged, also where others were left out"


def test_a_failure_in_any_phase_counts() -> None:
    heard = outcomes(test_d="failed")
    heard.hear("t.py::test_d", "passed")
    assert heard.verdict(rows(PROMISES, KEPT)[2]) == "FAIL"
