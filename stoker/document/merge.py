"""How one document lies over another: mappings merge, lists replace, a changed `type` replaces, alternatives push each other out."""

from collections.abc import Collection

from stoker.document.grammar import Choice, Items, Object, Shape, Table, branch_of, fields_of
from stoker.document.strict_json import JsonValue
from stoker.spec.base import Duration
from stoker.spec.job import JobSpec
from stoker.spec.training import LENGTHS, Training

ROOT = Object(JobSpec)


def merged(below: JsonValue, above: JsonValue, shape: Shape | None = ROOT) -> JsonValue:
    """`above` laid over `below`; neither is changed."""
    if not isinstance(below, dict) or not isinstance(above, dict) or _replaces(below, above, shape):
        return above
    kept = {key: value for key, value in below.items() if key not in _pushed_out(above, shape)}
    inner = within(shape, above if _says(above, shape) else below)
    return {**kept, **{key: merged(kept[key], value, inner(key)) if key in kept else value for key, value in above.items()}}


def _replaces(below: dict[str, JsonValue], above: dict[str, JsonValue], shape: Shape | None) -> bool:
    if isinstance(shape, Object) and shape.model is Duration:
        return True
    if isinstance(shape, Choice) and above.get("preset") is not None and above["preset"] != below.get("preset"):
        return True  # another published model, not a mixture of two
    return (
        isinstance(shape, Choice)
        and shape.discriminator in above
        and above[shape.discriminator] != below.get(shape.discriminator)
    )


def _says(value: dict[str, JsonValue], shape: Shape | None) -> bool:
    return not isinstance(shape, Choice) or shape.discriminator in value


def _pushed_out(above: dict[str, JsonValue], shape: Shape | None) -> Collection[str]:
    if isinstance(shape, Object) and shape.model is Training and any(above.get(key) is not None for key in LENGTHS):
        return LENGTHS
    return ()


class within:  # reads as a function: within(shape, value)(key)
    """The shape of each key of a value."""

    def __init__(self, shape: Shape | None, value: JsonValue) -> None:
        self._shape = shape
        self._value = value

    def __call__(self, key: str) -> Shape | None:
        match self._shape:
            case Object(model):
                field = fields_of(model).get(key)
                return field.shape if field else None
            case Choice() as choice:
                branch = branch_of(choice, self._value)
                return within(Object(branch), self._value)(key) if branch else None
            case Items(item=inner) | Table(value=inner):
                return inner
            case _:
                return None
