"""Steps between the rows of a data set and the samples of the model: fitted on training rows, saved, applied again in prediction."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol, Self

import torch
from pydantic import JsonValue

Shape = tuple[int, ...]
"""Shape of one row: () for a text."""
RAGGED = -1
"""A length that differs from row to row."""


@dataclass(frozen=True)
class State:
    """A fitted step as it is saved."""

    values: Mapping[str, JsonValue] = field(default_factory=dict)
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    document: str | None = None
    """JSON that is useful by itself, such as a tokenizer."""


@dataclass(frozen=True)
class Fitted(ABC):
    """A step whose parameters are known. `apply` treats each row alone, so a row gives the same in training and in prediction."""

    kind: ClassVar[str]
    """Its name in data.json; its tensors are in <kind>.safetensors, its document is <kind>.json. A list has each kind once."""

    @abstractmethod
    def apply(self, values: Any) -> Any:
        """Rows as the next step wants them; `Any`, since each step reads what the step before it gives."""

    def after(self, shape: Shape) -> Shape:
        """Shape of a row that had `shape`."""
        return shape

    def state(self) -> State:
        """Every field by its name."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        tensors = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
        return State({name: value for name, value in found.items() if name not in tensors}, tensors)

    @classmethod
    def from_state(cls, state: State) -> Self:
        """The reverse of `state`. Raises ValueError for other fields than this version has."""
        found, known = {**state.values, **state.tensors}, [each.name for each in fields(cls)]
        if set(found) != set(known):
            raise ValueError(f"step {cls.kind} has the fields {', '.join(sorted(found))}; this version reads {', '.join(known)}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in found.items()})


class Step(Protocol):
    """A step as the spec asks for it."""

    makes: ClassVar[type[Fitted]]

    def fit(self, train: Any, before: Sequence[Fitted]) -> Fitted:
        """From training rows, to which the steps `before` were applied. Raises SpecProblem."""


def fit_steps(wanted: Iterable[Step], train: Any, learned: Sequence[Fitted]) -> tuple[tuple[Fitted, ...], Any]:
    """All steps in order, and training rows after the last one. A step that is in `learned` is taken from there.

    Raises SpecProblem.
    """
    known = {type(step): step for step in learned}
    fitted: tuple[Fitted, ...] = ()
    for step in wanted:
        fitted = (*fitted, known.get(step.makes) or step.fit(train, fitted))
        train = fitted[-1].apply(train)
    return fitted, train


def apply_steps(steps: Iterable[Fitted], values: Any) -> Any:
    for step in steps:
        values = step.apply(values)
    return values


def shape_after(steps: Iterable[Fitted], shape: Shape) -> Shape:
    for step in steps:
        shape = step.after(shape)
    return shape
