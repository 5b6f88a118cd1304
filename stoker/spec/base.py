"""What every part of a job spec has in common: the base class and the constrained values with their units."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Spec(BaseModel):
    """Immutable and strict: a key it does not know is an error, and no value is coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Knob:
    """What the catalogue says of a field beside its type and sentence.

    `unit` is the unit of the value ("" for a pure number), `affects` names what it moves (memory, speed, quality),
    `rows` the scoreboard rows it serves.
    """

    unit: str = ""
    affects: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Editors and other tools see the unit too."""
        made = handler(core)
        return {**made, "x-unit": self.unit} if self.unit else made


MAX_COUNT = 2**31 - 1
"""Largest count a spec may hold; sizes beyond it are typing errors."""

Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Natural = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Size = Annotated[int, Field(ge=1, le=1_000_000)]
"""A layer width, a vocabulary or a length."""
Depth = Annotated[int, Field(ge=1, le=10_000)]
"""A number of stacked blocks."""
Positive = Annotated[float, Field(ge=1e-12, le=1e12)]
"""A number above zero; anything smaller than 1e-12 is a typing error, not a wish."""
NonNegative = Annotated[float, Field(ge=0, le=1e12)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
"""A dropout probability; one would drop everything."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
DatasetRef = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(@[0-9]{1,9})?$")]
"""A data set by name, or by name and version: `digits` or `digits@3`."""
MetricKey = Annotated[str, Field(pattern=r"^[a-z]+/[A-Za-z0-9_@.-]{1,96}$")]
"""A metric as the run names it, `validation/accuracy`."""


class Duration(Spec):
    """A length of training: exactly one of the units is set."""

    steps: Annotated[Count | None, Knob("optimizer steps")] = None
    """Length in optimizer steps."""
    epochs: Annotated[Count | None, Knob("epochs")] = None
    """Length in passes over the training split."""
    tokens: Annotated[Annotated[int, Field(ge=1, le=2**62)] | None, Knob("tokens")] = None
    """Length in tokens seen by the model, for text; padding of short texts is seen too."""
    seconds: Annotated[Positive | None, Knob("seconds")] = None
    """Length in seconds of training time, checkpoints and evaluation included."""

    @model_validator(mode="after")
    def _one_unit(self) -> "Duration":
        given = [k for k in ("steps", "epochs", "tokens", "seconds") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError("set exactly one of steps, epochs, tokens, seconds")
        return self
