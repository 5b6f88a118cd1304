"""Grammar errors in plain words: pydantic checks once, through JSON, and each of its errors becomes a finding."""

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from stoker.document.describe import bound_of, described, kind_of
from stoker.document.document import escaped
from stoker.document.grammar import Choice, Either, Field, Items, Object, Scalar, Shape, Table, fields_of
from stoker.document.messages import finding, reason
from stoker.document.strict_json import JsonValue
from stoker.document.suggest import home_of, key_like, value_like
from stoker.errors import Finding
from stoker.i18n import Lang, translated
from stoker.spec.job import JobSpec
from stoker.text import MAX_ECHO, shown

MAX_FINDINGS = 100
"""Most findings in one answer; a document with more has one mistake many times."""


@dataclass(frozen=True)
class Spot:
    """Where an error stands: the pointer, the value there, the shape that was expected and the class that owns the last key."""

    pointer: str
    value: JsonValue
    shape: Shape | None
    owner: type[BaseModel] | None
    field: Field | None
    either: bool
    """Whether the shape is one of several, of which pydantic tried each."""

    @property
    def path(self) -> str:
        """The pointer in dotted form, short enough to repeat."""
        return dotted(self.pointer)


def parse(value: dict[str, JsonValue], lang: Lang = "en") -> tuple[JobSpec | None, list[Finding]]:
    """The spec, or None and all that keeps the value from being one."""
    try:
        return JobSpec.model_validate_json(json_text(value)), []
    except ValidationError as error:
        return None, _findings(error, value, lang)
    except (ValueError, TypeError, RecursionError):
        return None, [finding("invalid", "", lang, path="job", reason=reason("json", lang))]


_ENCODER = json.JSONEncoder(allow_nan=False)


def json_text(value: JsonValue) -> str:
    """JSON without a negative zero. Raises ValueError, TypeError or RecursionError for what is not JSON."""
    text = _ENCODER.encode(value)
    if "-0.0" in text:
        text = json.dumps(json.loads(text, parse_float=lambda digits: float(digits) + 0.0))
    return text


def _findings(error: ValidationError, value: dict[str, JsonValue], lang: Lang) -> list[Finding]:
    grouped: dict[str, list[tuple[Spot, dict[str, Any]]]] = {}
    for each in error.errors(include_url=False, include_input=False):
        spot = _locate(tuple(each["loc"]), value)
        grouped.setdefault(spot.pointer, []).append((spot, dict(each)))
        if len(grouped) > 2 * MAX_FINDINGS:
            break
    pruned = {pointer: _chosen(group) for pointer, group in grouped.items()}
    said = [group[0] for pointer, group in pruned.items() if not _superseded(pointer, pruned)]
    return [_finding(spot, each, lang) for spot, each in said[:MAX_FINDINGS]]


_TYPE_ERRORS = (
    "int_type",
    "float_type",
    "string_type",
    "bool_type",
    "tuple_type",
    "dict_type",
    "list_type",
    "model_type",
    "literal_error",
)


def _chosen(group: list[tuple[Spot, dict[str, Any]]]) -> list[tuple[Spot, dict[str, Any]]]:
    """Of what the options of one place say, only what the option that fits the value's type says; else one type error."""
    if len(group) == 1 or not group[0][0].either:
        return group[:1]
    fitting = [item for item in group if not _misfit(item)]
    return fitting[:1] or [(group[0][0], {**group[0][1], "type": "either"})]


def _misfit(item: tuple[Spot, dict[str, Any]]) -> bool:
    spot, each = item
    kind = str(each["type"])
    return kind in _TYPE_ERRORS and not (kind == "literal_error" and isinstance(spot.value, str))


def _superseded(pointer: str, groups: dict[str, list[tuple[Spot, dict[str, Any]]]]) -> bool:
    """Whether a type error of an option says less than an error inside the option that was meant."""
    (spot, each), *_ = groups[pointer]
    inside = any(other.startswith(f"{pointer}/") for other in groups)
    kind = str(each["type"])
    miscounted = kind == "too_short"  # pydantic counts only the entries that passed
    return inside and (miscounted or (spot.either and kind in (*_TYPE_ERRORS, "either")))


def _locate(loc: tuple[int | str, ...], value: JsonValue) -> Spot:
    """Follow a pydantic location through value and grammar together; what names a branch is not a step of the pointer."""
    spot = Spot("", value, Object(JobSpec), None, None, either=False)
    for part in loc:
        spot = _stepped(spot, part)
    return spot


def _stepped(spot: Spot, part: int | str) -> Spot:
    match spot.shape:
        case Choice() as choice if isinstance(part, str) and part in choice.branches:
            return Spot(spot.pointer, spot.value, Object(choice.branches[part]), spot.owner, spot.field, either=False)
        case Object(model):
            field = fields_of(model).get(str(part))
            inner = spot.value.get(part) if isinstance(spot.value, dict) else None
            return Spot(
                f"{spot.pointer}/{escaped(str(part))}",
                inner,
                field.shape if field else None,
                model,
                field,
                either=isinstance(field.shape, Either) if field else False,
            )
        case Items(item=item) if isinstance(part, int):
            return Spot(f"{spot.pointer}/{part}", _entry(spot.value, part), item, None, spot.field, either=False)
        case Table(value=item):
            if part == "[key]":
                return spot
            return Spot(f"{spot.pointer}/{escaped(str(part))}", _entry(spot.value, part), item, None, spot.field, either=False)
        case Either(options) if isinstance(part, int):
            items = next((option for option in options if isinstance(option, Items)), None)
            return Spot(
                f"{spot.pointer}/{part}", _entry(spot.value, part), items.item if items else None, None, spot.field, either=False
            )
        case _:
            return spot


def _entry(value: JsonValue, part: int | str) -> JsonValue:
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return value.get(part) if isinstance(value, dict) else None


def _finding(spot: Spot, each: dict[str, Any], lang: Lang) -> Finding:
    kind = str(each["type"])
    match kind:
        case "extra_forbidden":
            return _unknown_key(spot, lang)
        case "missing":
            return _missing(spot, lang)
        case "union_tag_not_found":
            return _no_tag(spot, lang)
        case "union_tag_invalid" | "literal_error" | "enum":
            return _not_one_of(spot, lang)
        case "string_pattern_mismatch":
            pattern = str(each.get("ctx", {}).get("pattern", ""))
            return finding("wrong-pattern", spot.pointer, lang, path=spot.path, pattern=pattern)
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal" | "finite_number" | "int_parsing_size":
            return finding("out-of-range", spot.pointer, lang, path=spot.path, value=shown(spot.value), bound=_bound(spot, lang))
        case "too_short" | "too_long" | "string_too_short" | "string_too_long":
            return _wrong_length(spot, lang)
        case "value_error":
            return finding("one-duration", spot.pointer, lang, path=spot.path)
        case _:
            return _wrong_type(spot, lang)


def _unknown_key(spot: Spot, lang: Lang) -> Finding:
    key = _last(spot.pointer)
    parent = dotted(spot.pointer.rpartition("/")[0]) or "job"
    siblings = tuple(fields_of(spot.owner)) if spot.owner else ()
    if (guess := key_like(key, siblings)) is not None:
        return finding("misspelled-key", spot.pointer, lang, path=spot.path, guess=guess)
    above = ".".join(part for part in dotted(spot.pointer.rpartition("/")[0]).split(".") if not part.isdigit())
    if (home := home_of(key, above)) is not None:
        return finding("misplaced-key", spot.pointer, lang, path=spot.path, home=home)
    allowed = siblings if len(siblings) <= 20 else None
    return finding("unknown-key", spot.pointer, lang, allowed=allowed, path=spot.path, parent=parent)


def _missing(spot: Spot, lang: Lang) -> Finding:
    doc = translated(spot.field.doc, lang) if spot.field else ""
    return finding("missing", spot.pointer, lang, path=spot.path, key=_last(spot.pointer), doc=doc)


def _no_tag(spot: Spot, lang: Lang) -> Finding:
    if not isinstance(spot.shape, Choice) or not isinstance(spot.value, dict):
        return _wrong_type(spot, lang)
    key = spot.shape.discriminator
    allowed = tuple(spot.shape.branches)
    pointer = f"{spot.pointer}/{key}"
    return finding("missing-type", pointer, lang, allowed=allowed, path=dotted(pointer), key=key, choices=", ".join(allowed))


def _not_one_of(spot: Spot, lang: Lang) -> Finding:
    pointer, value, choices = spot.pointer, spot.value, _choices(spot.shape)
    if isinstance(spot.shape, Choice) and isinstance(value, dict):
        pointer, value = f"{pointer}/{spot.shape.discriminator}", value.get(spot.shape.discriminator)
    holes = {"path": dotted(pointer), "value": shown(value), "choices": ", ".join(choices)}
    if isinstance(value, list | dict):
        return finding(
            "wrong-type",
            pointer,
            lang,
            allowed=choices,
            path=dotted(pointer),
            expected=holes["choices"],
            given=kind_of(value, lang),
        )
    guess = value_like(value, choices) if isinstance(value, str) else None
    if guess is not None:
        return finding("misspelled-value", pointer, lang, allowed=choices, guess=guess, **holes)
    return finding("not-one-of", pointer, lang, allowed=choices, **holes)


def _choices(shape: Shape | None) -> tuple[str, ...]:
    match shape:
        case Choice(branches=branches):
            return tuple(branches)
        case Scalar(choices=choices):
            return tuple(shown(choice) if not isinstance(choice, str) else choice for choice in choices)
        case Either(options):
            return tuple(choice for option in options for choice in _choices(option))
        case _:
            return ()


def _wrong_length(spot: Spot, lang: Lang) -> Finding:
    given = len(spot.value) if isinstance(spot.value, str | list | dict) else 0
    kind = "wrong-text-length" if isinstance(spot.value, str) else "wrong-length"
    return finding(kind, spot.pointer, lang, path=spot.path, given=given, bound=_bound(spot, lang))


def _bound(spot: Spot, lang: Lang) -> str:
    """The bounds that apply to the value's type."""
    shape = spot.shape
    if isinstance(shape, Either):
        meant = Items if isinstance(spot.value, list) else Scalar
        shape = next((option for option in shape.options if isinstance(option, meant)), shape)
    return bound_of(shape, lang) if shape else ""


def _wrong_type(spot: Spot, lang: Lang) -> Finding:
    if spot.shape is None or spot.pointer == "":
        return finding("not-a-mapping", spot.pointer, lang, given=kind_of(spot.value, lang))
    expected = described(spot.shape, lang)
    quoted = isinstance(spot.value, str) and isinstance(spot.shape, Scalar) and _reads_as(spot.value, spot.shape.kind)
    kind = "wrong-type-quoted" if quoted else "wrong-type"
    return finding(kind, spot.pointer, lang, path=spot.path, expected=expected, given=kind_of(spot.value, lang))


def _reads_as(text: str, kind: str) -> bool:
    if kind == "boolean":
        return text in ("true", "false")
    try:
        return kind in ("integer", "number") and (int(text) if kind == "integer" else float(text)) is not None
    except ValueError:
        return False


def dotted(pointer: str) -> str:
    """`/optimizer/lr` as `optimizer.lr`, cut to MAX_ECHO characters."""
    text = ".".join(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= MAX_ECHO else text[: MAX_ECHO - 1] + "…"


def _last(pointer: str) -> str:
    return dotted("/" + pointer.rpartition("/")[2])
