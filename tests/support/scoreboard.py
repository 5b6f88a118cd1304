"""A pytest plugin: which of the parameters we promise were proven to work by this run.

Every whole run fails when a test that `tests/scoreboard.toml` names did not run, or no test of a row passed. `--scoreboard` runs
only those tests and prints every row with its title and how it went (`make scoreboard`).
"""

import csv
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.thorough import LEFT

TESTS = Path(__file__).parents[1]
ELSEWHERE = "tests/images/"
"""Tests of worker images, which make runs in environments of their own."""
LEFT_OUT = "left to make test-all"
GROUP = re.compile(r"@[^\]]*$")
"""What xdist adds to the name of a test that runs in a group."""


@dataclass(frozen=True)
class Row:
    """One promised parameter: its id, its title, the tests that prove it, or why there are none yet."""

    id: str
    title: str
    tests: tuple[str, ...] = ()
    owed: str = ""


def rows(promises: str, kept: Mapping[str, Any]) -> list[Row]:
    """All rows of the table of promises, with what the scoreboard says of them."""
    owed = kept.get("owed", {})
    return [
        Row(line["id"], line["en"], tuple(kept.get(line["id"], {}).get("tests", ())), owed.get(line["id"], ""))
        for line in csv.DictReader(promises.splitlines())
    ]


def read() -> list[Row]:
    return rows((TESTS / "parameters.csv").read_text("utf-8"), tomllib.loads((TESTS / "scoreboard.toml").read_text("utf-8")))


@dataclass
class Outcomes:
    """How tests went, by name: passed, failed or skipped."""

    by_test: dict[str, str] = field(default_factory=dict)
    left: Collection[str] = ()
    """Tests that `make test` left to `make test-all`."""

    def hear(self, nodeid: str, outcome: str) -> None:
        """Of one phase of a test: a failure in any of them counts."""
        test = GROUP.sub("", nodeid)
        if self.by_test.get(test) != "failed":
            self.by_test[test] = outcome

    def of(self, named: str) -> list[str]:
        """Of a test, or of all its cases when it is named without one."""
        if named in self.by_test:
            return [self.by_test[named]]
        return [outcome for test, outcome in self.by_test.items() if test.startswith(f"{named}[")]

    def is_left(self, named: str) -> bool:
        """Whether a test was left out, or all its cases when it is named without one."""
        return not self.of(named) and any(test == named or test.startswith(f"{named}[") for test in self.left)

    def verdict(self, row: Row) -> str:
        """`pass`, or what is the matter."""
        if row.owed:
            return f"owed: {row.owed}"
        if not row.tests:
            return "not on the scoreboard"
        here = [test for test in row.tests if not test.startswith(ELSEWHERE)]
        if not here:
            return "with its image: make horovod-test, make xla-test"
        here = [test for test in here if not self.is_left(test)]
        if not here:
            return LEFT_OUT
        missing = [test for test in here if not self.of(test)]
        if missing:
            return f"did not run: {', '.join(missing)}"
        outcomes = [outcome for test in here for outcome in self.of(test)]
        if "failed" in outcomes:
            return "FAIL"
        return "pass" if "passed" in outcomes else "skipped"


def table(rows: Iterable[Row], outcomes: Outcomes) -> list[str]:
    return [f"{row.id:9}{row.title[:62]:64}{outcomes.verdict(row)}" for row in rows]


def unproven(rows: Iterable[Row], outcomes: Outcomes) -> list[str]:
    """Rows that the scoreboard says are kept, and this run did not prove."""
    kept = (row for row in rows if any(not test.startswith(ELSEWHERE) for test in row.tests))
    return [f"{row.id} {verdict}" for row in kept if (verdict := outcomes.verdict(row)) not in ("pass", "FAIL", LEFT_OUT)]


class Plugin:
    """On the process that sees all reports."""

    def __init__(self, *, shown: bool, whole: bool) -> None:
        self.shown, self.whole, self.outcomes = shown, whole, Outcomes()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes.hear(report.nodeid, report.outcome)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.outcomes.left = session.config.stash[LEFT].reasons
        if session.exitstatus == 0 and self.whole and unproven(read(), self.outcomes):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.shown:
            terminalreporter.section("scoreboard")
            for line in table(read(), self.outcomes):
                terminalreporter.write_line(line)
        if self.whole and (lines := unproven(read(), self.outcomes)):
            terminalreporter.section("rows of the scoreboard that this run did not prove")
            for line in lines:
                terminalreporter.write_line(line)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--scoreboard", action="store_true", help="run the tests of tests/scoreboard.toml and print how each row went"
    )


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    shown, choices = config.getoption("scoreboard"), ("keyword", "markexpr", "lf", "deselect", "collectonly", "maxfail")
    asked = config.args_source is pytest.Config.ArgsSource.ARGS
    partial = any(config.getoption(choice, False) for choice in choices)
    config.pluginmanager.register(Plugin(shown=shown, whole=shown or not (asked or partial)), "stoker-scoreboard")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("scoreboard"):
        return
    named = {test for row in read() for test in row.tests}
    wanted = [item for item in items if item.nodeid in named or item.nodeid.split("[")[0] in named]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(wanted)])
    items[:] = wanted
