"""A training feature is a transform at assembly, a null object that the step always calls, or a rhythm between steps.

So the loop is one page, its step has no branches, and neither it nor the assembly asks the spec whether a feature is on. Assembly
is a file per product, and no function body anywhere is longer than a page.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRAINER = ROOT / "worker" / "trainer"
LOOP = (TRAINER / "loop.py").read_text()
ASSEMBLY = sorted((TRAINER / "assembly").glob("*.py"))
PAGE = 180
"""Lines of the loop file at most."""
BODY = 60
"""Lines of a function body at most, its docstring not counted."""
IMPORTS = 60
"""Names that one file of the assembly imports at most."""
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
    assert [question for file in ASSEMBLY for question in questions(file.read_text())] == []


def imported(source: str) -> int:
    """Names that a file imports."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    return sum(len(node.names) for node in nodes)


def long_bodies(source: str) -> list[str]:
    """Functions whose body has more lines than a page."""
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [f.name for f in functions if (f.end_lineno or 0) - _first(f).lineno + 1 > BODY]


def _first(function: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.stmt:
    """The first statement after the docstring."""
    said = ast.get_docstring(function) is not None and len(function.body) > 1
    return function.body[1] if said else function.body[0]


def test_each_product_of_the_assembly_imports_only_what_it_builds() -> None:
    assert {file.name: count for file in ASSEMBLY if (count := imported(file.read_text())) > IMPORTS} == {}


def test_no_body_is_longer_than_a_page() -> None:
    files = [path for plane in ("stoker", "server", "worker") for path in (ROOT / plane).rglob("*.py")]
    assert {str(file.relative_to(ROOT)): long for file in files if (long := long_bodies(file.read_text()))} == {}


def test_a_long_body_is_reported() -> None:
    source = 'def short():\n    """Says."""\n' + "    x = 1\n" * BODY + "def long():\n" + "    x = 1\n" * (BODY + 1)
    assert long_bodies(source) == ["long"]


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
