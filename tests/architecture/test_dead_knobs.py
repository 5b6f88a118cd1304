"""No knob is accepted and ignored: every field of the spec is read, by name, in code that acts on it."""

import ast
import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import stoker.spec
from stoker.spec.base import Spec

ROOT = Path(__file__).parents[2]
MADE_OF = (
    "stoker/spec/model/cnn.py",
    "stoker/spec/model/layers.py",
    "stoker/spec/model/transformer.py",
    "stoker/spec/optimizer",
)
"""Families that say themselves which layers they consist of, how wide those are, and who is treated how."""
ACTORS = ("worker", "server", "stoker/plan/needs.py", "stoker/spec/derived/arithmetic.py", "stoker/spec/distributed", *MADE_OF)
"""Where a field must be read: the trainer, the agent, the scheduler with what it places, the server's retention and retries,
and what they share: arithmetic, and the size of a world."""
BY_KEY = {
    "Resources.max_retries": "server/attempts/ending.py reads it from the stored document, which it need not parse",
    "CNN.preset": "stoker/document/sizes.py writes it out before there is a spec",
    "TransformerDecoder.preset": "stoker/document/sizes.py writes it out before there is a spec",
    "TransformerEncoder.preset": "stoker/document/sizes.py writes it out before there is a spec",
}
"""Fields that are read as a key of the document, and why."""
CHOICES = ("type", "strategy", "api_version")
"""Which member of a union a document chose, and its grammar: matched by class, not read."""


def every_spec() -> Iterator[type[Spec]]:
    for module in pkgutil.walk_packages(stoker.spec.__path__, "stoker.spec."):
        importlib.import_module(module.name)
    todo = list(Spec.__subclasses__())
    while todo:
        spec = todo.pop()
        todo += spec.__subclasses__()
        if spec.__module__.startswith("stoker.spec."):
            yield spec


def reads(sources: Iterable[str]) -> set[str]:
    """Names read as an attribute, or taken out by a class pattern (`case SGD(momentum=m)`)."""
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    return attributes | {name for node in nodes if isinstance(node, ast.MatchClass) for name in node.kwd_attrs}


def dead(specs: Iterable[type[Spec]], names: set[str]) -> list[str]:
    fields = {(spec.__name__, name) for spec in specs for name in spec.model_fields}
    return sorted(f"{spec}.{name}" for spec, name in fields if name not in names and name not in CHOICES)


def _sources() -> Iterator[str]:
    for place in ACTORS:
        path = ROOT / place
        for file in [path] if path.is_file() else path.rglob("*.py"):
            yield file.read_text()


@pytest.fixture(scope="module")
def read_names() -> set[str]:
    return reads(_sources())


@pytest.mark.parametrize("spec", sorted(set(every_spec()), key=lambda spec: spec.__name__), ids=lambda spec: spec.__name__)
def test_every_field_is_read_by_name(spec: type[Spec], read_names: set[str]) -> None:
    assert [name for name in dead([spec], read_names) if name not in BY_KEY] == []


def test_fields_read_by_key_are() -> None:
    for field, why in BY_KEY.items():
        file, name = why.split()[0], field.split(".")[1]
        assert f'["{name}"]' in (ROOT / file).read_text(), field


def test_a_dead_knob_is_reported() -> None:
    class Optimizer(Spec):
        type: str = "magic"
        """Which."""
        rate: float = 1.0
        """Read as an attribute."""
        decay: float = 0.0
        """Taken out by a pattern."""
        warmth: float = 0.0
        """Written, never read."""

    source = "x = spec.rate\nspec.warmth = 1\nmatch spec:\n    case Optimizer(decay=d):\n        pass\n"
    assert dead([Optimizer], reads([source])) == ["Optimizer.warmth"]
