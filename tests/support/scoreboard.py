"""A pytest plugin: which of the parameters we promise were proven to work by this run.

A test says which rows of `tests/parameters.csv` it proves: `@pytest.mark.proves("OPT-06")`, or for some of its cases only,
`@pytest.mark.proves("OPT-06", cases=["adam", "*-beta1"])`, where the cases are shell patterns of the names in brackets. Every
whole run fails when a row has no test that ran and passed. `--scoreboard` runs only tests with such a mark and prints every row
with its title and how it went (`make scoreboard`).
"""

import ast
import csv
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
PROPERTY = "proves"
"""Under which the rows of a test travel with its reports."""


@dataclass(frozen=True)
class Row:
    """One promised parameter: its id, its title, its places in the spec, or why nothing proves it yet."""

    id: str
    title: str
    paths: tuple[str, ...] = ()
    owed: str = ""
    elsewhere: bool = False
    """All tests that prove it are those of worker images, which run in another environment."""


def rows(promises: str, kept: Mapping[str, Any], marks: Mapping[str, set[str]]) -> list[Row]:
    """All rows of the table of promises, with what the scoreboard and the marks of tests (files by row) say about them."""
    return [
        Row(
            line["id"],
            line["en"],
            tuple(kept["path"].get(line["id"], ())),
            kept["owed"].get(line["id"], ""),
            bool(marks.get(line["id"])) and all(file.startswith("images/") for file in marks[line["id"]]),
        )
        for line in csv.DictReader(promises.splitlines())
    ]


def read() -> list[Row]:
    kept = tomllib.loads((TESTS / "scoreboard.toml").read_text("utf-8"))
    return rows((TESTS / "parameters.csv").read_text("utf-8"), kept, marked(TESTS))


def marked(folder: Path) -> dict[str, set[str]]:
    """Rows that marks in a folder name, with the files these stand in; read from the source, without importing it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in folder.rglob("test_*.py"):
        source = path.read_text("utf-8")
        if ".proves(" not in source:
            continue
        for call in ast.walk(ast.parse(source)):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "proves":
                for row in call.args:
                    if isinstance(row, ast.Constant):
                        found[str(row.value)].add(path.relative_to(folder).as_posix())
    return found


def proven_by(item: pytest.Item) -> list[str]:
    """The rows that a test proves, if this case of it does."""
    case = _case(item)
    return sorted({row for mark in item.iter_markers("proves") if _covers(mark, case) for row in mark.args})


def _case(item: pytest.Item) -> str:
    """The name in brackets, without what plugins add to the id of a test."""
    return item.callspec.id if hasattr(item, "callspec") else ""


def _covers(mark: pytest.Mark, case: str) -> bool:
    return "cases" not in mark.kwargs or any(fnmatchcase(case, pattern) for pattern in mark.kwargs["cases"])


def absent_cases(items: Iterable[pytest.Item]) -> Iterator[str]:
    """Patterns of cases that match none of a test's."""
    cases: dict[str, list[str]] = defaultdict(list)
    patterns: dict[str, set[str]] = defaultdict(set)
    for item in items:
        test = item.nodeid.split("[")[0]
        cases[test].append(_case(item))
        patterns[test].update(*(mark.kwargs.get("cases", ()) for mark in item.iter_markers("proves")))
    for test, named in patterns.items():
        for pattern in sorted(named):
            if not any(fnmatchcase(case, pattern) for case in cases[test]):
                yield f"{test}: the mark `proves` names the case {pattern!r}, which this test does not have"


@dataclass
class Outcomes:
    """How the tests of each row went, by name: passed, failed or skipped."""

    by_row: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))

    def hear(self, rows: Iterable[str], test: str, outcome: str) -> None:
        """One phase of a test: a failure in any of them counts."""
        for row in rows:
            if self.by_row[row].get(test) != "failed":
                self.by_row[row][test] = outcome

    def verdict(self, row: Row) -> str:
        """`pass`, or what is the matter."""
        if row.owed:
            return f"owed: {row.owed}"
        if row.elsewhere:
            return "with its image: make horovod-test, make xla-test"
        heard = list(self.by_row[row.id].values())
        if not heard:
            return "no test that proves it ran"
        if "failed" in heard:
            return "FAIL"
        return "pass" if "passed" in heard else "skipped"


def table(rows: Iterable[Row], outcomes: Outcomes) -> list[str]:
    """A line for each row: id, title, how many tests passed, verdict."""
    passed = {row: list(heard.values()).count("passed") for row, heard in outcomes.by_row.items()}
    return [f"{row.id:9}{row.title[:62]:64}{passed.get(row.id, 0):4}  {outcomes.verdict(row)}" for row in rows]


def unproven(rows: Iterable[Row], outcomes: Outcomes) -> list[str]:
    """Rows that have a place in the spec, and that this run did not prove."""
    kept = (row for row in rows if row.paths and not row.elsewhere)
    return [f"{row.id} {verdict}" for row in kept if (verdict := outcomes.verdict(row)) not in ("pass", "FAIL")]


class Plugin:
    """On the process that sees all reports."""

    def __init__(self, *, shown: bool, whole: bool) -> None:
        self.shown, self.whole, self.outcomes = shown, whole, Outcomes()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            named = [row for name, rows in report.user_properties if name == PROPERTY for row in rows]
            self.outcomes.hear(named, report.nodeid, report.outcome)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.exitstatus == 0 and self.whole and unproven(read(), self.outcomes):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.shown:
            terminalreporter.section("scoreboard")
            for line in table(read(), self.outcomes):
                terminalreporter.write_line(line)
        if self.whole and (lines := unproven(read(), self.outcomes)):
            terminalreporter.section("promised parameters that this run did not prove")
            for line in lines:
                terminalreporter.write_line(line)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--scoreboard", action="store_true", help="run the tests marked `proves` and print how each row went")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "proves(*rows, cases=None): rows of tests/parameters.csv that the test proves")
    if hasattr(config, "workerinput"):
        return
    shown, choices = config.getoption("scoreboard"), ("keyword", "markexpr", "lf", "deselect", "collectonly", "maxfail")
    asked = config.args_source is pytest.Config.ArgsSource.ARGS
    partial = any(config.getoption(choice, False) for choice in choices)
    config.pluginmanager.register(Plugin(shown=shown, whole=shown or not (asked or partial)), "stoker-scoreboard")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not any("::" in argument for argument in config.args) and (absent := list(absent_cases(items))):
        raise pytest.UsageError("\n".join(absent))
    for item in items:
        if proven := proven_by(item):
            item.user_properties.append((PROPERTY, proven))
    if config.getoption("scoreboard"):
        wanted = [item for item in items if proven_by(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(wanted)])
        items[:] = wanted
