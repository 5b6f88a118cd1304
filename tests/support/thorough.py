"""A pytest plugin: which tests `make test` leaves to `make test-all`, which sets STOKER_ALL=1 and leaves none.

`make test` leaves out
- a test with the mark `thorough("why")`, or the case of it that has the mark. Without a reason it is one more case of what
  `make test` runs; `left` gives the mark to some of the cases;
- its case on a database that the mark `databases("sqlite", "postgresql")` doesn't name. Without the mark that is PostgreSQL;
- a test with the mark `quarantine("why")`. `make test-all` runs it and reports a failure, which doesn't fail the run.

The end of the run says how many tests it left out, of which files and why. Tests named on the command line, by a file or by more,
are all run.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

KINDS = ("sqlite", "postgresql")
"""Values of a parameter that names a database."""
USUAL = ("sqlite",)
"""Databases of a test that says nothing of them, in `make test`."""
ONE_MORE = "one more case of what ran"
OTHER_DATABASE = "runs here on the other database"


def left(cases: Iterable[Any], thorough: Collection[Any]) -> list[Any]:
    """Arguments for `parametrize`: all cases, with the mark on those that are left to the thorough run."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.thorough if case in thorough else ())
        for case in cases
    ]


def reason(item: pytest.Item) -> str | None:
    """Why `make test` leaves a test out."""
    for name in ("quarantine", "thorough"):
        if mark := item.get_closest_marker(name):
            (why,) = mark.args or (ONE_MORE,)
            return str(why) if name == "thorough" else f"quarantined: {why}"
    callspec = getattr(item, "callspec", None)
    wanted = mark.args if (mark := item.get_closest_marker("databases")) else USUAL
    if callspec is not None and any(value in KINDS and value not in wanted for value in _texts(callspec.params.values())):
        return OTHER_DATABASE
    return None


def _texts(values: Iterable[Any]) -> list[str]:
    return [value for value in values if isinstance(value, str)]


@dataclass
class Left:
    """Tests that a run left out: the reason of each by its name."""

    reasons: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """For each reason a line with the number of tests and the files that have them."""
        files: dict[str, Counter[str]] = {}
        for test, why in self.reasons.items():
            files.setdefault(why, Counter())[test.partition("::")[0].removeprefix("tests/")] += 1
        ordered = sorted(files.items(), key=lambda entry: -entry[1].total())
        return [f"{count.total():4}  {why}: {', '.join(f'{name} ({n})' for name, n in count.items())}" for why, count in ordered]


LEFT = pytest.StashKey[Left]()


def selects(config: pytest.Config) -> bool:
    """Whether this run leaves tests out. A process that xdist started is told by the one that started it."""
    if hasattr(config, "workerinput"):
        return bool(config.workerinput["selects"])
    named = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
    whole = all(Path(argument.partition("::")[0]).is_dir() for argument in named)
    return whole and os.environ.get("STOKER_ALL") != "1"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT] = Left()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["selects"] = selects(node.config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not selects(config):
        for item in items:
            if mark := item.get_closest_marker("quarantine"):
                item.add_marker(pytest.mark.xfail(reason=mark.args[0], strict=False))
        return
    out = {item: why for item in items if (why := reason(item))}
    config.stash[LEFT].reasons.update({item.nodeid: why for item, why in out.items()})
    config.hook.pytest_deselected(items=list(out))
    items[:] = [item for item in items if item not in out]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = session.config.stash[LEFT].reasons


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    node.config.stash[LEFT].reasons.update(getattr(node, "workeroutput", {}).get("left", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash[LEFT].lines():
        terminalreporter.section(f"{len(config.stash[LEFT].reasons)} tests left to make test-all")
        for line in lines:
            terminalreporter.write_line(line)
