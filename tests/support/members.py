"""What a job spec offers: every member of every union and every part that may be left out, read from the types themselves."""

from collections.abc import Iterator, Mapping
from inspect import get_annotations
from typing import Any

from pydantic import BaseModel

from stoker.document.grammar import Choice, Either, Items, Object, Shape, Table, fields_of, walk
from stoker.spec import JobSpec

ADVICE = (
    "no job of tests/support/tiny holds these: add each to a job there that it is independent of, or a job of a few steps, "
    "with a data set of tests/support/tiny/files.py. It then runs by the trainer (test_knobs_are_read) and through the whole "
    "system (test_union_members)."
)


def _choices(shape: Shape) -> Iterator[Choice]:
    match shape:
        case Choice():
            yield shape
        case Items(item=inner) | Table(value=inner):
            yield from _choices(inner)
        case Either(options):
            for option in options:
                yield from _choices(option)


def _names() -> tuple[dict[frozenset[type[BaseModel]], str], dict[tuple[type[BaseModel], str], str]]:
    """Unions and parts, each with the first place where it may stand; a union in several places is one."""
    unions: dict[frozenset[type[BaseModel]], str] = {}
    parts: dict[tuple[type[BaseModel], str], str] = {}
    for step in walk(JobSpec):
        for choice in _choices(step.field.shape):
            unions.setdefault(frozenset(choice.branches.values()), step.path)
        if isinstance(step.field.shape, Object) and step.field.nullable:
            parts.setdefault(_declared(step.owner, step.field.name), step.path)
    return unions, parts


def _declared(owner: type[BaseModel], name: str) -> tuple[type[BaseModel], str]:
    """A field, by the class that declares it, which others inherit from."""
    return next(base for base in reversed(owner.__mro__) if name in get_annotations(base)), name


UNIONS, PARTS = _names()


def offered() -> set[str]:
    """`optimizer: Adam` for each member of a union, `training.ema` for each part that may be left out."""
    return {f"{path}: {member.__name__}" for members, path in UNIONS.items() for member in members} | set(PARTS.values())


def held(spec: BaseModel) -> set[str]:
    """Which of them stand in a spec, by default or not."""
    found: set[str] = set()
    for name, field in fields_of(type(spec)).items():
        unions = [frozenset(choice.branches.values()) for choice in _choices(field.shape)]
        for value in _models(getattr(spec, name)):
            found |= {f"{UNIONS[members]}: {type(value).__name__}" for members in unions if type(value) in members}
            if (part := PARTS.get(_declared(type(spec), name))) is not None:
                found.add(part)
            found |= held(value)
    return found


def written_out(origins: Mapping[str, str]) -> set[str]:
    """Which of them stood in a document and are other members in its spec, by where the values of this come from."""
    return {"model: HF"} if origins.get("/model/type", "").startswith("hf:") else set()


def _models(value: Any) -> Iterator[BaseModel]:
    """The models that a field holds (`Any`: it may be anything that a spec may hold)."""
    if isinstance(value, BaseModel):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _models(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _models(each)
