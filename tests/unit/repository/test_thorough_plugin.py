"""What `make test` leaves to `make test-all`, by runs of a file of tests that has one of each kind."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TESTS = """
import pytest

def test_usual(): pass

@pytest.mark.thorough("takes a minute")
def test_long(): pass

@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_cases(n): pass

@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request): return request.param

def test_any_database(kind): assert kind in ("sqlite", "postgresql")

@pytest.mark.databases("sqlite", "postgresql")
def test_both(kind): pass

@pytest.mark.databases("postgresql")
def test_other(kind): pass

@pytest.mark.quarantine("loses a race")
def test_flaky(): assert False
"""
USUAL = {"usual", "cases[1]", "any_database[sqlite]", "both[sqlite]", "both[postgresql]", "other[postgresql]"}
LEFT = """\
2 runs here on the other database: test_kinds.py (2)
1 takes a minute: test_kinds.py (1)
1 one more case of what ran: test_kinds.py (1)
1 quarantined: loses a race: test_kinds.py (1)"""


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_kinds.py").write_text(TESTS)
    plugins = [word for name in ("xdist.plugin", "tests.support.thorough", "no:cacheprovider") for word in ("-p", name)]
    command = [sys.executable, "-m", "pytest", "-vrA", *plugins, f"--rootdir={folder}", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "STOKER_"))}
    clean |= {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "200"} | environment
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, timeout=120)


def outcomes(text: str) -> dict[str, str]:
    return {
        test: outcome for outcome, test in re.findall(r"^(PASSED|FAILED|XFAIL) test_kinds.py::test_(\S+)", text, re.MULTILINE)
    }


@pytest.mark.parametrize("processes", [[], ["-n2"]], ids=["one", "two"])
def test_a_usual_run_says_what_it_left(tmp_path: Path, processes: list[str]) -> None:
    done = run(tmp_path, *processes)
    assert outcomes(done.stdout) == dict.fromkeys(USUAL, "PASSED"), done.stdout + done.stderr
    assert done.returncode == 0
    _, _, said = done.stdout.partition("5 tests left to make test-all")
    assert "\n".join(" ".join(line.split()) for line in said.splitlines()[1:5]) == LEFT


def test_a_thorough_run_leaves_nothing_and_a_quarantined_failure_is_none(tmp_path: Path) -> None:
    done = run(tmp_path, STOKER_ALL="1")
    more = {"long", "cases[2]", "any_database[postgresql]", "other[sqlite]"}
    assert outcomes(done.stdout) == dict.fromkeys(USUAL | more, "PASSED") | {"flaky": "XFAIL"}
    assert done.returncode == 0
    assert "left to make test-all" not in done.stdout


def test_who_names_a_test_runs_it(tmp_path: Path) -> None:
    assert outcomes(run(tmp_path, "test_kinds.py::test_long").stdout) == {"long": "PASSED"}
    assert len(outcomes(run(tmp_path, "test_kinds.py").stdout)) == len(USUAL) + 5
    assert len(outcomes(run(tmp_path, str(tmp_path)).stdout)) == len(USUAL)
