"""Tests that fail now and then are few, and each says why."""

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]
AT_MOST = 5


def quarantined(source: str) -> list[str]:
    """The reason of each mark `quarantine` in a file; empty where it has none."""
    tree = list(ast.walk(ast.parse(source)))
    marks = [node for node in tree if isinstance(node, ast.Attribute) and node.attr == "quarantine"]
    reasons = {id(node.func): ast.unparse(node.args[0]) for node in tree if isinstance(node, ast.Call) and node.args}
    return [reasons.get(id(mark), "") for mark in sorted(marks, key=lambda mark: mark.lineno)]


def test_at_most_five_tests_are_quarantined_each_with_its_reason() -> None:
    marks = [why for file in TESTS.rglob("test_*.py") for why in quarantined(file.read_text("utf-8"))]
    assert len(marks) <= AT_MOST
    assert all(marks)


def test_marks_and_their_reasons_are_found() -> None:
    assert quarantined("@pytest.mark.quarantine('slow disk')\ndef f(): ...\nx = pytest.mark.quarantine") == ["'slow disk'", ""]
