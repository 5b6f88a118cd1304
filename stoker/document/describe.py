"""Shapes, bounds and kinds of values in words."""

from stoker.document.grammar import Choice, Either, Items, Object, Scalar, Shape, Table
from stoker.document.strict_json import JsonValue
from stoker.i18n import Lang, translated

KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "decimal": "a decimal number",
    "string": "text",
    "boolean": "true or false",
    "mapping": "a mapping",
    "list": "a list",
    "null": "null",
}
WORDS = (
    *KINDS.values(),
    "or",
    "and",
    "at least",
    "above",
    "at most",
    "below",
    "between {low} and {high}",
    "a list, each {item}",
)
"""Every fragment that messages are made of, for the translation."""


def kind_of(value: JsonValue, lang: Lang) -> str:
    """What kind of value this is, without repeating it."""
    match value:
        case None:
            name = "null"
        case bool():
            name = "boolean"
        case int():
            name = "integer"
        case float():
            name = "decimal"
        case str():
            name = "string"
        case list():
            name = "list"
        case _:
            name = "mapping"
    return translated(KINDS[name], lang)


def described(shape: Shape, lang: Lang) -> str:
    """What a shape takes: `a whole number between 1 and 64`."""
    match shape:
        case Scalar(kind="choice", choices=choices):
            return f" {translated('or', lang)} ".join(str(choice) for choice in choices)
        case Scalar(kind=kind):
            bound = bound_of(shape, lang) if kind in ("integer", "number") else ""
            return f"{translated(KINDS[kind], lang)} {bound}".strip()
        case Object() | Choice() | Table():
            return translated(KINDS["mapping"], lang)
        case Items(item=item):
            return translated("a list, each {item}", lang).format(item=described(item, lang))
        case Either(options):
            return f" {translated('or', lang)} ".join(described(option, lang) for option in options)


def bound_of(shape: Shape, lang: Lang) -> str:
    """The bounds of a shape: `between 1 and 64`, `above 0`, `at least 2`."""
    match shape:
        case Scalar(kind="string", min_length=low, max_length=high) | Items(min_length=low, max_length=high):
            return _range(low, None, high, None, lang)
        case Table(max_length=high):
            return _range(None, None, high, None, lang)
        case Scalar(ge=ge, gt=gt, le=le, lt=lt):
            return _range(ge, gt, le, lt, lang)
        case Either(options):
            return f" {translated('or', lang)} ".join(
                filter(None, (bound_of(option, lang) for option in options if isinstance(option, Scalar)))
            )
        case _:
            return ""


def _range(ge: float | None, gt: float | None, le: float | None, lt: float | None, lang: Lang) -> str:
    if ge is not None and le is not None:
        return translated("between {low} and {high}", lang).format(low=_number(ge), high=_number(le))
    words = (("at least", ge), ("above", gt), ("at most", le), ("below", lt))
    joined = f" {translated('and', lang)} "
    return joined.join(f"{translated(word, lang)} {_number(value)}" for word, value in words if value is not None)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
