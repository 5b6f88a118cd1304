"""Every field of the spec says in one sentence what it does to the run, and every number has a unit or is known to be pure."""

import importlib
import pkgutil
import typing
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import pytest
from pydantic import Field

import stoker.spec
from stoker.spec.base import Duration, Knob, Spec


def every_spec(root: type[Spec] = Spec) -> Iterator[type[Spec]]:
    """Every class of the grammar, whether or not something else imports it."""
    for module in pkgutil.walk_packages(stoker.spec.__path__, "stoker.spec."):
        importlib.import_module(module.name)
    yield from _below(root)


def _below(root: type[Spec]) -> Iterator[type[Spec]]:
    for child in root.__subclasses__():
        if child.__module__.startswith("stoker.spec."):
            yield child
            yield from _below(child)


def undocumented(specs: Iterable[type[Spec]]) -> list[str]:
    complaints = []
    for spec in specs:
        for name, info in spec.model_fields.items():
            where = f"{spec.__name__}.{name}"
            text = info.description or ""
            if not text:
                complaints.append(f"{where} has no docstring")
            elif not text.endswith(".") or not (text[0].isupper() or text[0].isdigit() or text.split(",")[0].islower()):
                complaints.append(f"{where}: not a sentence: {text!r}")
            if _is_number(spec.__annotations__.get(name, info.annotation)) and not _knob(info.metadata):
                complaints.append(f"{where} is a number without a Knob, which gives its unit")
    return complaints


def _knob(metadata: Iterable[Any]) -> bool:
    return any(isinstance(part, Knob) for part in metadata)


def _is_number(annotation: Any) -> bool:
    """Whether a value of this type may be a number (a bool is none)."""
    if annotation in (int, float, Duration):
        return True
    if typing.get_origin(annotation) is typing.Literal:
        return any(type(value) in (int, float) for value in typing.get_args(annotation))
    if typing.get_origin(annotation) is Annotated:
        return _is_number(typing.get_args(annotation)[0])
    return any(_is_number(part) for part in typing.get_args(annotation))


SPECS = sorted(set(every_spec()), key=lambda spec: spec.__name__)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
def test_every_field_is_documented(spec: type[Spec]) -> None:
    assert undocumented([spec]) == []


def test_an_undocumented_field_is_reported() -> None:
    class Silent(Spec):
        rate: Annotated[float, Field(ge=0)] = 0.0
        size: Annotated[int | None, Knob("samples")] = None
        """how big"""
        count: int = 1
        """How many of them."""

    assert undocumented([Silent]) == [
        "Silent.rate has no docstring",
        "Silent.rate is a number without a Knob, which gives its unit",
        "Silent.size: not a sentence: 'how big'",
        "Silent.count is a number without a Knob, which gives its unit",
    ]
