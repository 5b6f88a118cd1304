"""A training feature is a transform at assembly, a null object that the step always calls, or a rhythm between steps.

So the loop is one page, its step has no branches, and neither it nor the assembly asks the spec whether a feature is on.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

TRAINER = Path(__file__).parents[2] / "worker" / "trainer"
LOOP, ASSEMBLE = (TRAINER / "loop.py").read_text(), (TRAINER / "assembly.py").read_text()
PAGE = 170
"""Lines of the loop file at most."""
SPECS = {"spec", "training", "debug", "precision", "distributed", "checkpoint"}
"""Names under which a spec or a family of it goes."""


def conditions(tree: ast.AST) -> Iterator[ast.expr]:
    """What branches depend on."""
    for node in ast.walk(tree):
        match node:
            case ast.If() | ast.IfExp() | ast.While() | ast.Assert():
                yield node.test
            case ast.Match():
                yield node.subject
            case ast.comprehension():
                yield from node.ifs


def asks_the_spec(expression: ast.expr) -> bool:
    """Whether an expression reads a field of the spec: `spec.…`, `run.spec.…`, `training.…`."""
    for node in ast.walk(expression):
        if isinstance(node, ast.Attribute):
            inner = node.value
            if isinstance(inner, ast.Name) and inner.id in SPECS:
                return True
            if isinstance(inner, ast.Attribute) and inner.attr in SPECS:
                return True
    return False


def questions(source: str) -> list[str]:
    return [ast.unparse(test) for test in conditions(ast.parse(source)) if asks_the_spec(test)]


def branches(source: str, function: str) -> list[str]:
    """Statements of a function that may be left out or repeated."""
    (body,) = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef) and n.name == function]
    kinds = (ast.If, ast.IfExp, ast.Match, ast.Try, ast.While)
    return [ast.unparse(node).splitlines()[0] for node in ast.walk(body) if isinstance(node, kinds)]


def test_the_loop_is_one_page() -> None:
    assert len(LOOP.splitlines()) <= PAGE


def test_the_step_has_no_branches() -> None:
    assert branches(LOOP, "step") == []


def test_the_loop_and_the_assembly_ask_no_spec_whether_a_feature_is_on() -> None:
    assert questions(LOOP) == []
    assert questions(ASSEMBLE) == []


def test_a_feature_conditional_is_reported() -> None:
    source = """
def step(run):
    if run.spec.training.ema is not None:
        run.ema()
    scale = training.scale or 1.0  # a default is no question
    late = run.free if training.free else None
    for x in [y for y in run.all if spec.debug.on]:
        x()
"""
    assert set(questions(source)) == {"spec.debug.on", "run.spec.training.ema is not None", "training.free"}
    assert branches(source, "step") != []
