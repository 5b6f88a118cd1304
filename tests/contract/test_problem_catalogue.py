"""Every code that the server can answer with is published, and nothing is published that it cannot answer with."""

import ast
from collections.abc import Iterator
from pathlib import Path

from stoker.problems import PROBLEMS, reference

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "problems.md"
CALLS: dict[str, int] = {"problem": 1, "Refusal": 1, "unavailable": 0, "_refuse": 1, "JsonRejected": 0}
"""Functions that make a refusal, and which argument is its code."""
FOLDERS = ("server", "stoker/document/strict_json.py")
ELSEWHERE = {
    "bad_request",
    "not_found",
    "method_not_allowed",
    "dataset_rejected",
    "format_not_allowed",
    "yaml_rejected",
}
"""Codes that stand in a table or in a variable before they are answered."""


def said() -> Iterator[str]:
    for folder in FOLDERS:
        for path in (p for p in [ROOT / folder, *(ROOT / folder).rglob("*.py")] if p.suffix == ".py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and (at := CALLS.get(name(node.func))) is not None and len(node.args) > at:
                    code = node.args[at]
                    if isinstance(code, ast.Constant) and isinstance(code.value, str):
                        yield code.value


def name(call: ast.expr) -> str:
    return call.attr if isinstance(call, ast.Attribute) else call.id if isinstance(call, ast.Name) else ""


def test_what_is_said_is_published_and_what_is_published_is_said() -> None:
    found = set(said())
    assert len(found) > 40
    assert found | ELSEWHERE == set(PROBLEMS)


def test_the_committed_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == "\n".join(reference()) + "\n", (
        "run python -m stoker.problems > docs/reference/problems.md"
    )
