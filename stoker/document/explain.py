"""`optimizer.beta1` → what it does, its type, default, bounds, unit, what it moves, and which rules look at it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from stoker.document.describe import bound_of, described
from stoker.document.grammar import Choice, Either, Field, Items, Object, Scalar, Shape, fields_of, models_in, walk
from stoker.document.strict_json import JsonValue
from stoker.document.suggest import home_of, key_like
from stoker.errors import Finding, SpecError
from stoker.i18n import Lang, translated
from stoker.spec.job import JobSpec
from stoker.spec.rules import RULES
from stoker.spec.rules._rule import Rule
from stoker.text import nearest, shown

ROOT_TEXT = "Everything that decides what a training job computes, and where."
UNKNOWN_PATH = ("there is no `{path}` in a spec", "did you mean `{guess}`?")


class Key(BaseModel):
    """One key below an explained path."""

    model_config = ConfigDict(frozen=True)

    name: str
    text: str


class Explanation(BaseModel):
    """What may stand at a path, in a language."""

    model_config = ConfigDict(frozen=True)

    path: str
    text: str
    """One sentence saying what it does to the run."""
    type: str
    """In words: `a number between 0 and 1`."""
    kinds: tuple[str, ...] = ()
    """Kinds (`adam`, `adamw`) that have this key as it is explained here; empty when all have it."""
    required: bool = False
    nullable: bool = False
    default: JsonValue = None
    bounds: str | None = None
    unit: str | None = None
    allowed: tuple[str, ...] = ()
    """Values, or kinds, to choose from."""
    affects: tuple[str, ...] = ()
    """Memory, speed, quality."""
    rows: tuple[str, ...] = ()
    """Rows of the parameter catalogue that it serves."""
    rules: tuple[str, ...] = ()
    """Ids of rules that look at it."""
    keys: tuple[Key, ...] = ()
    """What may stand below it."""
    variants: tuple["Explanation", ...] = ()
    """The same key as other kinds have it, where that differs."""


@dataclass(frozen=True)
class _Found:
    """A field reached by a path, and the kinds chosen on the way."""

    field: Field
    kind: str | None
    shape: Shape
    """The field's, or the part of it that a path with an index or a kind at its end means."""


def explain(path: str = "", lang: Lang = "en") -> Explanation:
    """What a dotted path means; indices and kinds may stand in it (`model.layers.0.conv.stride`), and `` is the whole spec.

    Raises SpecError, code unknown-path, with the nearest path that exists.
    """
    steps = [step for step in path.strip().strip(".").replace("/", ".").split(".") if step]
    if not steps:
        return _root(lang)
    found = _at(steps)
    if not found:
        raise SpecError([_unknown(path, steps, lang)])
    groups: dict[Field, list[_Found]] = {}
    for each in found:
        groups.setdefault(_same(each.field, groups), []).append(each)
    made = [_explanation(".".join(steps), field, group, lang) for field, group in groups.items()]
    only = len(made) == 1
    first = made[0].model_copy(update={"kinds": made[0].kinds if not only or len(_branches(steps)) > len(found) else ()})
    return first if only else first.model_copy(update={"variants": tuple(made[1:])})


def _same(field: Field, known: dict[Field, list[_Found]]) -> Field:
    """The known field that says the same, or the field itself."""
    return next((other for other in known if other == field), field)


def _root(lang: Lang) -> Explanation:
    text = translated(ROOT_TEXT, lang)
    return Explanation(
        path="", text=text, type=described(Object(JobSpec), lang), required=True, keys=_keys(Object(JobSpec), lang)
    )


def _at(steps: list[str]) -> list[_Found]:
    """Every field that a path may mean; where a kind and a key share a name, the key is meant."""
    shapes: list[tuple[Shape, str | None, Field | None]] = [(Object(JobSpec), None, None)]
    for step in steps:
        shapes = [reached for shape, kind, field in shapes for reached in _next(shape, step, kind, field)]
    found = [_Found(field, kind, shape) for shape, kind, field in shapes if field is not None]
    named = [each for each in found if each.field.name == steps[-1]]
    return named or found


def _next(shape: Shape, step: str, kind: str | None, field: Field | None) -> Iterator[tuple[Shape, str | None, Field | None]]:
    match shape:
        case Object(model):
            if (inner := fields_of(model).get(step)) is not None:
                yield inner.shape, kind, inner
        case Choice(branches=branches):
            if step in branches:
                yield Object(branches[step]), step, field
            for tag, model in branches.items():
                if (inner := fields_of(model).get(step)) is not None:
                    yield inner.shape, tag, inner
        case Items(item=item):
            if step.isdigit():
                yield item, kind, field
            else:
                yield from _next(item, step, kind, field)
        case Either(options):
            for option in options:
                yield from _next(option, step, kind, field)
        case _:
            return


def _branches(steps: list[str]) -> tuple[str, ...]:
    """The kinds that the mapping above a path may have."""
    above = _at(steps[:-1])
    return tuple(tag for each in above for tag in _kinds(each.field.shape))


def _kinds(shape: Shape) -> tuple[str, ...]:
    match shape:
        case Choice(branches=branches):
            return tuple(branches)
        case Items(item=item):
            return _kinds(item)
        case _:
            return ()


def _explanation(path: str, field: Field, group: list[_Found], lang: Lang) -> Explanation:
    shape = group[0].shape
    return Explanation(
        path=path,
        text=translated(field.doc, lang),
        type=described(shape, lang),
        kinds=tuple(each.kind for each in group if each.kind),
        required=field.required,
        nullable=field.nullable,
        default=field.default,
        bounds=bound_of(shape, lang) or None,
        unit=translated(field.knob.unit, lang) or None,
        allowed=_allowed(shape),
        affects=tuple(translated(word, lang) for word in field.knob.affects),
        rows=field.knob.rows,
        rules=_rules_at(path),
        keys=_keys(shape, lang),
    )


def _allowed(shape: Shape) -> tuple[str, ...]:
    match shape:
        case Choice(branches=branches):
            return tuple(branches)
        case Scalar(choices=choices):
            return tuple(str(choice) for choice in choices)
        case Items(item=item):
            return _allowed(item)
        case Either(options):
            return tuple(value for option in options for value in _allowed(option))
        case _:
            return ()


def _keys(shape: Shape, lang: Lang) -> tuple[Key, ...]:
    known: dict[str, str] = {}
    for model in models_in(shape):
        for name, field in fields_of(model).items():
            known.setdefault(name, translated(field.doc, lang))
    return tuple(Key(name=name, text=text) for name, text in known.items())


def _rules_at(path: str) -> tuple[str, ...]:
    """Rules that read the key or something in it, and those that read what it stands in and name it in their words."""
    pointer, leaf = "/" + path.replace(".", "/"), path.rpartition(".")[2]

    def concerns(rule: Rule) -> bool:
        named = re.search(rf"\b{re.escape(leaf)}\b", f"{rule.message} {rule.hint}") is not None
        return any(
            read == pointer or read.startswith(f"{pointer}/") or (named and pointer.startswith(f"{read}/")) for read in rule.reads
        )

    return tuple(rule.id for rule in RULES if concerns(rule))


def _unknown(path: str, steps: list[str], lang: Lang) -> Finding:
    guess = _guess(steps)
    message = translated(UNKNOWN_PATH[0], lang).format(path=shown(path).strip("'"))
    hint = translated(UNKNOWN_PATH[1], lang).format(guess=guess) if guess else None
    return Finding(code="unknown-path", message=message, hint=hint)


def _guess(steps: list[str]) -> str | None:
    """Follow what exists, mend the first step that does not."""
    if len(steps) > 20:
        return None
    for length in range(len(steps)):
        if length and not _at(steps[: length + 1]):
            return _mended(steps, length)
    if _at(steps[:1]):
        return None
    return _mended(steps, 0)


def _mended(steps: list[str], at: int) -> str | None:
    above = _at(steps[:at])
    shapes = [each.field.shape for each in above] if at else [Object(JobSpec)]
    siblings = dict.fromkeys(name for shape in shapes for model in models_in(shape) for name in fields_of(model))
    if (name := key_like(steps[at], siblings)) is not None:
        return ".".join([*steps[:at], name])
    return home_of(steps[-1], ".".join(steps[:at])) or nearest(".".join(steps), [step.path for step in walk(JobSpec)])
