"""The scoreboard: which tests prove a row, and its verdict from outcomes that are given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.scoreboard import Outcomes, marked, rows, table, unproven

PROMISES = "id,en\nA-01,First\nA-02,Second\nA-03,Third\nA-04,Fourth\nA-05,Fifth\nA-06,Sixth\n"
KEPT = {
    "path": {row: ["x"] for row in ("A-01", "A-02", "A-03", "A-06")},
    "owed": {"A-04": "needs hardware that is not here"},
}
MARKS = {
    "A-01": {"unit/test_a.py", "images/xla/test_e.py"},
    "A-02": {"unit/test_a.py"},
    "A-03": {"unit/test_a.py"},
    "A-06": {"images/xla/test_e.py"},
}


def outcomes(**found: str) -> Outcomes:
    heard = Outcomes()
    heard.hear(["A-01"], "t.py::test_a[x]", "passed")
    heard.hear(["A-01", "A-05"], "t.py::test_b", "passed")
    heard.hear(["A-02"], "t.py::test_b", "failed")
    for test, outcome in found.items():
        heard.hear(["A-03"], f"t.py::{test}", outcome)
    return heard


def test_each_row_says_how_it_went() -> None:
    lines = [" ".join(line.split()) for line in table(rows(PROMISES, KEPT, MARKS), outcomes())]
    assert lines == [
        "A-01 First 2 pass",
        "A-02 Second 0 FAIL",
        "A-03 Third 0 no test that proves it ran",
        "A-04 Fourth 0 owed: needs hardware that is not here",
        "A-05 Fifth 1 pass",
        "A-06 Sixth 0 with its image: make horovod-test, make xla-test",
    ]


def test_a_row_is_proven_by_tests_that_ran() -> None:
    said = rows(PROMISES, KEPT, MARKS)
    assert unproven(said, outcomes()) == ["A-03 no test that proves it ran"]
    assert unproven(said, outcomes(test_d="skipped")) == ["A-03 skipped"]
    assert unproven(said, outcomes(test_d="skipped", test_e="passed")) == []


def test_a_failure_in_any_phase_counts() -> None:
    heard = outcomes(test_d="failed")
    heard.hear(["A-03"], "t.py::test_d", "passed")
    assert heard.verdict(rows(PROMISES, KEPT, MARKS)[2]) == "FAIL"


TESTS_WITH_MARKS = """
import pytest

@pytest.mark.proves("OPT-01", "OPT-02")
@pytest.mark.proves("OPT-03", cases=["adam-*"])
@pytest.mark.parametrize("case", ["adam-beta1", "adam-beta2", "sgd", pytest.param("lion", marks=pytest.mark.proves("OPT-04"))])
def test_one(case):
    assert case != BROKEN

def test_other():
    pass
"""


def test_marks_are_read_from_source(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "test_a.py").write_text(TESTS_WITH_MARKS)
    assert marked(tmp_path) == {f"OPT-0{i}": {"images/test_a.py"} for i in (1, 2, 3, 4)}


def pytest_on(folder: Path, tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_inner.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.scoreboard", *options]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250)


def test_rows_of_tests_that_other_processes_ran_are_heard(tmp_path: Path) -> None:
    done = pytest_on(tmp_path, TESTS_WITH_MARKS.replace("BROKEN", "'sgd'"), "--scoreboard", "-p", "xdist.plugin", "-n", "2")
    said = {line.split()[0]: line.split()[-2:] for line in done.stdout.splitlines() if line.startswith("OPT-0")}
    assert {row: said[row] for row in ("OPT-01", "OPT-03", "OPT-04")} == {
        "OPT-01": ["3", "FAIL"],  # one of its four tests fails
        "OPT-03": ["2", "pass"],
        "OPT-04": ["1", "pass"],
    }
    assert "no test that proves it ran" in done.stdout, "the other rows"
    assert "4 items" in done.stdout or "3 passed" in done.stdout, "a test without a mark ran"
    assert done.returncode == 1


def test_a_whole_run_that_passes_fails_for_a_row_that_nothing_proved(tmp_path: Path) -> None:
    done = pytest_on(tmp_path, TESTS_WITH_MARKS.replace("BROKEN", "'none'"))
    assert "5 passed" in done.stdout
    assert "promised parameters that this run did not prove" in done.stdout
    assert done.returncode == 1


def test_a_case_that_a_test_does_not_have_is_refused(tmp_path: Path) -> None:
    done = pytest_on(tmp_path, TESTS_WITH_MARKS.replace("adam-*", "adamw-*"))
    assert "the mark `proves` names the case 'adamw-*', which this test does not have" in done.stdout + done.stderr
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
