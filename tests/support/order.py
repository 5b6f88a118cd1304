"""A pytest plugin: which process of a run gets which files, the slow ones first; and what each test took.

A process of xdist runs the tests of a file, whose fixtures are then made once; files that share more than that are one group. What
comes first is read from `benchmarks/test_durations.txt`, which `make test-durations` writes.
"""

import os
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

RECORD = Path(__file__).parents[2] / "benchmarks" / "test_durations.txt"
TOGETHER = {
    "tests/acceptance/": ("test_command_line.py", "test_lifecycle.py", "test_main_job.py", "test_submit.py", "test_watch.py"),
    "tests/faults/": ("test_hang.py", "test_kills.py", "test_many_ranks.py"),
}
"""Files of a folder that one process runs: they use the installation of a process, and a run that nothing interrupted."""
GROUPS = {folder + name: folder for folder, names in TOGETHER.items() for name in names}
SLOWEST = 50


def group(test: str) -> str:
    """What the tests of one process are called that belong together."""
    file = test.partition("::")[0]
    return GROUPS.get(file, file)


def recorded(text: str) -> dict[str, float]:
    """Seconds of each file that a record names."""
    rows = re.findall(r"^ *([0-9.]+) +(\S+\.py)$", text, re.MULTILINE)
    return {file: float(seconds) for seconds, file in rows}


def record(seconds: Mapping[str, float], wall: float) -> str:
    """The slowest tests, then every file of a second or more."""
    files: dict[str, float] = defaultdict(float)
    for test, took in seconds.items():
        files[test.partition("::")[0]] += took
    head = f"# make test-durations: {len(seconds)} tests in {wall:.0f} s, {os.cpu_count()} processors. Seconds include fixtures."
    rows = _rows(seconds)[:SLOWEST], _rows({file: took for file, took in files.items() if took >= 1})
    return "\n".join([head, "", f"# The slowest {SLOWEST} tests", *rows[0], "", "# Files of a second or more", *rows[1], ""])


def _rows(seconds: Mapping[str, float]) -> list[str]:
    return [f"{took:8.1f}  {name}" for name, took in sorted(seconds.items(), key=lambda entry: -entry[1])]


class Durations:
    """On the process that sees all reports."""

    def __init__(self, place: Path) -> None:
        self.place, self.began = place, time.monotonic()
        self.seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        self.place.write_text(record(self.seconds, time.monotonic() - self.began), "utf-8")


class Grouped(LoadScopeScheduling):
    """Whole groups to processes, in the order of the tests."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--durations-to", type=Path, help="write what tests took to this file, as `make test-durations` does")


def pytest_configure(config: pytest.Config) -> None:
    if (place := config.getoption("durations_to")) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Durations(place), "stoker-durations")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    return Grouped(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Groups by what they took last, tests of a group as they were: fixtures of a session are made once in that order."""
    if not RECORD.exists():
        return
    seconds: dict[str, float] = defaultdict(float)
    for file, took in recorded(RECORD.read_text("utf-8")).items():
        seconds[group(file)] += took
    items.sort(key=lambda item: -seconds[group(item.nodeid)])
