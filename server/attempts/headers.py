"""The headers of small frames, checked: jobs show their values, so each must be readable text or a finite number."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from server.errors import problem
from stoker.document.strict_json import JsonValue

_DEPTH = 8
_MEMBERS = 200
_INT64 = 2**63


def readable(text: object) -> object:
    """Text without what no database and no JSON reader takes: U+0000 and halves of surrogate pairs become U+FFFD."""
    if not isinstance(text, str):
        return text
    return text.replace("\x00", "\ufffd").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def plain(value: Any, depth: int = _DEPTH) -> Any:
    """A JSON value that can be stored and shown: bounded in depth and members, finite, readable."""
    match value:
        case bool() | None:
            return value
        case int():
            return value if -_INT64 <= value < _INT64 else str(value)[:40]
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            return str(readable(value))[:10_000]
        case _ if depth == 0:
            return "…"
        case list():
            return [plain(v, depth - 1) for v in value[:_MEMBERS]]
        case dict():
            return {str(readable(k))[:200]: plain(v, depth - 1) for k, v in list(value.items())[:_MEMBERS]}
        case _:
            raise ValueError("not JSON")


Text = BeforeValidator(readable)
Step = Annotated[int, Field(ge=0, le=2**31 - 1)]
Count = Annotated[int, Field(ge=0, le=2**53)]


class Header(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Phase(Header):
    name: Annotated[str, Text, Field(min_length=1, max_length=64)]


class Started(Header):
    step: Step
    total_steps: Count | None
    parameters: Count | None = None
    world_size: Count | None = None
    device: Annotated[str, Text, Field(max_length=64)] | None = None


class Prepared(Header):
    address: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:_-]+$")]
    port: Annotated[int, Field(ge=1, le=65_535)]


class Progress(Header):
    step: Step
    epoch: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    samples: Count
    tokens: Count


class Notice(Header):
    level: Literal["info", "warning", "error"] = "info"
    code: Annotated[str, Text, Field(max_length=64)]
    message: Annotated[str, Text, Field(max_length=100_000)]
    step: Step | None = None
    data: Annotated[dict[str, Any], BeforeValidator(plain)] = {}


H = TypeVar("H", bound=Header)


def header_of(kind: type[H], header: Mapping[str, JsonValue]) -> H:
    """The header as a kind of frame. Raises 422 `frame_invalid`."""
    try:
        return kind.model_validate(dict(header))
    except ValidationError as error:
        raise problem(422, "frame_invalid", f"{kind.__name__.lower()} frame: {first_fault(error)}") from error


def first_fault(error: ValidationError) -> str:
    """`field step: input should be greater than or equal to 0`; input is not repeated, except the names of fields."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    at = ".".join(str(readable(str(part)))[:64] for part in fault["loc"][:4])
    return f"field {at}: {fault['msg'][:1].lower()}{fault['msg'][1:]}" if at else fault["msg"]
