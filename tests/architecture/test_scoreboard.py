"""Every parameter we promise has a place in the spec and a test that says it proves it.

`tests/parameters.csv` is the promise. Tests name the rows they prove (`@pytest.mark.proves`, see `tests/support/scoreboard.py`);
`tests/scoreboard.toml` holds what no test can say: the place of each row in the spec, and which rows are owed, with the reason.
"""

import csv
import tomllib
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

import pytest

from stoker.document.explain import explain
from tests.support.scoreboard import marked

TESTS = Path(__file__).parents[1]
SCOREBOARD = tomllib.loads((TESTS / "scoreboard.toml").read_text())
PATHS: dict[str, list[str]] = SCOREBOARD["path"]
OWED: dict[str, str] = SCOREBOARD["owed"]
PROMISED = {row["id"]: row for row in csv.DictReader((TESTS / "parameters.csv").read_text("utf-8").splitlines())}
WHOLE = (
    "01 architecture",
    "02 initialization & transfer",
    "03 optimizer",
    "04 learning-rate schedule",
    "05 loss",
    "06 regularization",
    "07 training process",
    "11 distributed & hardware",
    "14 evaluation, logging, insight",
)
"""Groups of which each row is kept or owed."""


def no_places(paths: Iterable[str]) -> list[str]:
    """Paths that the spec does not have."""
    wrong = []
    for path in paths:
        try:
            explain(path)
        except Exception as error:
            wrong.append(f"{path} is no place in the spec ({error})")
    return wrong


def complaints(promised: Set[str], paths: Set[str], marks: Mapping[str, Set[str]], owed: Set[str]) -> list[str]:
    """Rows about which the table, the scoreboard and the marks disagree."""
    return [
        *(f"{row}: no row of parameters.csv has this id" for row in sorted((paths | marks.keys() | owed) - promised)),
        *(f"{row}: it has a path; mark the test that proves it with proves({row!r})" for row in sorted(paths - marks.keys())),
        *(
            f"{row}: {', '.join(sorted(marks[row]))} proves it; add its path to tests/scoreboard.toml"
            for row in sorted(marks.keys() & promised - paths - owed)
        ),
        *(f"{row}: it is proven and owed; remove one of them" for row in sorted(paths & owed)),
    ]


@pytest.mark.parametrize("row", sorted(PATHS))
def test_a_row_has_a_place(row: str) -> None:
    assert PATHS[row]
    assert no_places(PATHS[row]) == []


def test_the_table_the_scoreboard_and_the_marks_agree() -> None:
    assert complaints(PROMISED.keys(), PATHS.keys(), marked(TESTS), OWED.keys()) == []
    assert all(len(reason) > 20 for reason in OWED.values())


def test_groups_are_whole() -> None:
    rows = {row for row, line in PROMISED.items() if line["group"] in WHOLE}
    assert len(rows) == 127
    assert rows - PATHS.keys() - OWED.keys() == set()


def test_what_is_wrong_is_reported() -> None:
    assert len(no_places(["optimizer.beta9", "optimizer.beta1"])) == 1
    said = complaints({"A", "B", "C", "D"}, {"A", "B", "X"}, {"A": {"a.py"}, "C": {"c.py"}}, {"A", "D"})
    assert [line.split(":")[0] for line in said] == ["X", "B", "X", "C", "A"]
