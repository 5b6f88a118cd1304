"""Every parameter we promise has a place in the spec and a test that proves it works, and a file says which.

`tests/parameters.csv` is the promise, `tests/scoreboard.toml` how it is kept: for each row the path in the spec and the tests,
as pytest ids. A row may stand under `owed` instead, with the reason, until it is built.
"""

import ast
import csv
import re
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from stoker.document.explain import explain

ROOT = Path(__file__).parents[2]
KEPT: dict[str, Any] = tomllib.loads((ROOT / "tests" / "scoreboard.toml").read_text())
OWED: dict[str, str] = KEPT.pop("owed", {})
PROMISED = {row["id"]: row for row in csv.DictReader((ROOT / "tests" / "parameters.csv").read_text("utf-8").splitlines())}
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
"""Groups of which each row stands in the file, kept or owed."""


@cache
def functions(path: Path) -> set[str]:
    """Names of a file's tests."""
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def complaints(row: str, entry: dict[str, Any]) -> Iterable[str]:
    """What is wrong with an entry."""
    if set(entry) != {"path", "tests"} or not entry["tests"]:
        yield f"{row}: an entry has a path and at least one test"
        return
    for path in [entry["path"]] if isinstance(entry["path"], str) else entry["path"]:
        try:
            explain(path)
        except Exception as error:
            yield f"{row}: {path} is no place in the spec ({error})"
    for test in entry["tests"]:
        file, _, name = test.partition("::")
        if not (ROOT / file).is_file():
            yield f"{row}: there is no {file}"
        elif re.sub(r"\[.*", "", name) not in functions(ROOT / file):
            yield f"{row}: {file} has no test {name}"


@pytest.mark.parametrize("row", sorted(KEPT))
def test_a_kept_row_has_a_place_and_tests(row: str) -> None:
    assert list(complaints(row, KEPT[row])) == []


def test_every_row_is_promised_and_none_is_both_kept_and_owed() -> None:
    assert (KEPT.keys() | OWED.keys()) - PROMISED.keys() == set()
    assert KEPT.keys() & OWED.keys() == set()
    assert all(len(reason) > 20 for reason in OWED.values())


def test_groups_are_whole() -> None:
    rows = {row for row, line in PROMISED.items() if line["group"] in WHOLE}
    assert len(rows) == 127
    assert rows - KEPT.keys() - OWED.keys() == set()


def test_a_wrong_entry_is_reported() -> None:
    wrong = {"path": "optimizer.beta9", "tests": ["tests/nowhere.py::test_a", "tests/architecture/test_scoreboard.py::test_none"]}
    assert len(list(complaints("X-01", wrong))) == 3
    assert len(list(complaints("X-02", {"path": "optimizer.beta1", "tests": []}))) == 1
