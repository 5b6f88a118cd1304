"""The spec's grammar as data: what may stand at each path. Read from the families once; explain, findings and overrides use it."""

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from stoker.document.document import escaped
from stoker.document.strict_json import JsonValue
from stoker.spec.base import Knob


@dataclass(frozen=True)
class Scalar:
    """One value: `kind` is integer, number, string, boolean or choice."""

    kind: str
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    pattern: str | None = None
    min_length: int | None = None
    max_length: int | None = None
    choices: tuple[JsonValue, ...] = ()


@dataclass(frozen=True)
class Object:
    """A mapping with known keys."""

    model: type[BaseModel]


@dataclass(frozen=True)
class Choice:
    """A mapping whose `discriminator` key says which keys it has."""

    discriminator: str
    branches: Mapping[str, type[BaseModel]]


@dataclass(frozen=True)
class Items:
    """A list."""

    item: "Shape"
    min_length: int | None = None
    max_length: int | None = None


@dataclass(frozen=True)
class Table:
    """A mapping with free keys."""

    value: "Shape"
    max_length: int | None = None


@dataclass(frozen=True)
class Either:
    """Values of several shapes."""

    options: tuple["Shape", ...]


Shape = Scalar | Object | Choice | Items | Table | Either


@dataclass(frozen=True, eq=True)
class Field:
    """One key of a mapping."""

    __hash__ = object.__hash__  # defaults may be lists and mappings

    name: str
    shape: Shape
    nullable: bool
    required: bool
    default: JsonValue
    doc: str
    knob: Knob


@cache
def fields_of(model: type[BaseModel]) -> Mapping[str, Field]:
    """Key → field, in the order of the class."""
    hints = get_type_hints(model, include_extras=True)
    return {name: _field(name, info, hints[name]) for name, info in model.model_fields.items()}


def _field(name: str, info: FieldInfo, hint: Any) -> Field:
    default = None if info.is_required() else info.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, BaseModel):
        default = default.model_dump(mode="json")
    if isinstance(default, tuple):
        default = [each.model_dump(mode="json") if isinstance(each, BaseModel) else each for each in default]
    knob = next((extra for extra in _extras(hint) if isinstance(extra, Knob)), Knob())
    doc = " ".join((info.description or "").split())
    return Field(name, shape_of(hint), _nullable(hint), info.is_required(), default, doc, knob)


def _extras(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _bare(hint: Any) -> Any:
    return _bare(get_args(hint)[0]) if get_origin(hint) is Annotated else hint


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _nullable(hint: Any) -> bool:
    return _is_union(bare := _bare(hint)) and type(None) in get_args(bare)


def shape_of(hint: Any) -> Shape:
    """The shape of a type annotation (`Any`: annotations have no common type)."""
    if get_origin(hint) is Annotated:
        return _constrained(hint)
    if get_origin(hint) is Literal:
        return Scalar("choice", choices=get_args(hint))
    if _is_union(hint):
        options = [option for option in get_args(hint) if option is not type(None)]
        return shape_of(options[0]) if len(options) == 1 else Either(_flat(shape_of(option) for option in options))
    if get_origin(hint) is tuple:
        return Items(shape_of(get_args(hint)[0]))
    if get_origin(hint) is dict:
        return Table(shape_of(get_args(hint)[1]))
    if issubclass(hint, BaseModel):
        return Object(hint)
    return Scalar({int: "integer", float: "number", str: "string", bool: "boolean"}[hint])


def _flat(shapes: Iterator[Shape]) -> tuple[Shape, ...]:
    return tuple(inner for shape in shapes for inner in (shape.options if isinstance(shape, Either) else (shape,)))


def _constrained(hint: Any) -> Shape:
    infos = [extra for extra in _extras(hint) if isinstance(extra, FieldInfo)]
    discriminator = next((info.discriminator for info in infos if isinstance(info.discriminator, str)), None)
    if discriminator is not None:
        models = [option for option in get_args(get_args(hint)[0]) if option is not type(None)]
        return Choice(discriminator, {tag_of(model, discriminator): model for model in models})
    shape = shape_of(get_args(hint)[0])
    for info in infos:
        shape = _with_bounds(shape, info)
    return shape


def _with_bounds(shape: Shape, info: FieldInfo) -> Shape:
    names = ("ge", "gt", "le", "lt", "pattern", "min_length", "max_length")
    bounds = {name: value for meta in info.metadata for name in names if (value := getattr(meta, name, None)) is not None}
    known = {name: value for name, value in bounds.items() if hasattr(shape, name)}
    return replace(shape, **known) if known else shape


def tag_of(model: type[BaseModel], discriminator: str) -> str:
    """The value of its discriminator that chooses a class."""
    return str(get_args(_bare(get_type_hints(model, include_extras=True)[discriminator]))[0])


def branch_of(shape: Choice, value: JsonValue) -> type[BaseModel] | None:
    """The class that a value chooses, by its discriminator or by its bare name."""
    if isinstance(value, dict):
        value = value.get(shape.discriminator)
    return shape.branches.get(value) if isinstance(value, str) else None


@dataclass(frozen=True)
class Step:
    """A place in a spec's grammar: dotted path without indices, owning class and field."""

    path: str
    owner: type[BaseModel]
    field: Field


def walk(model: type[BaseModel], prefix: str = "", above: tuple[type[BaseModel], ...] = ()) -> Iterator[Step]:
    """Every field of a class and of all it may hold, depth first; a class inside itself is entered once."""
    if model in above:
        return
    for name, field in fields_of(model).items():
        path = f"{prefix}{name}"
        yield Step(path, model, field)
        for inner in models_in(field.shape):
            yield from walk(inner, f"{path}.", (*above, model))


def models_in(shape: Shape) -> tuple[type[BaseModel], ...]:
    """The classes that may stand in a shape."""
    match shape:
        case Object(model):
            return (model,)
        case Choice(branches=branches):
            return tuple(branches.values())
        case Items(item=inner) | Table(value=inner):
            return models_in(inner)
        case Either(options):
            return tuple(model for option in options for model in models_in(option))
        case Scalar():
            return ()


def leaves(value: JsonValue, pointer: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Pointer and value of everything that holds nothing itself."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{pointer}/{escaped(str(key))}")
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{pointer}/{index}")
    else:
        yield pointer, value
