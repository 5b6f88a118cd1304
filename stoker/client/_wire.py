"""What a request and its answer are, apart from any transport; and what an answer means."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from stoker.errors import ApiError, Problem, ServerFault, from_problem, problem

T = TypeVar("T")
Params = Sequence[tuple[str, str]]

JSON = "application/json"


@dataclass(frozen=True)
class Answer:
    """A whole response. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Raises ServerFault when the body is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ServerFault(problem(502, "not_stoker", "the answer is not JSON: is this a Stoker server?")) from error


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its answer is read."""

    method: str
    path: str
    parse: Callable[[Answer], T]
    params: Params = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    timeout: float | None = None
    """Seconds for this call; unset, the client's."""
    repeatable: bool = True
    """Whether sending it twice does what sending it once does."""


def view(kind: Any) -> Callable[[Answer], Any]:
    """Reads a body as a view class (or a list, a page of one)."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def parse(answer: Answer) -> Any:
        try:
            return adapter.validate_python(answer.json())
        except ValidationError as error:
            raise ServerFault(problem(502, "not_understood", f"the server's answer is not understood: {error}")) from error

    return parse


def error_of(answer: Answer) -> ApiError:
    """The exception for an answer of 400 or more, also when its body is not a problem document."""
    try:
        found = Problem.model_validate_json(answer.body)
    except ValidationError:
        found = _foreign(answer)
    return from_problem(found, _seconds(answer.headers.get("retry-after")))


FINAL = frozenset({401, 403, 413, 429})
"""Status codes that a proxy in front of the server may send; other foreign pages do not come from a Stoker server."""


def _foreign(answer: Answer) -> Problem:
    """What an answer of 400 or more means that is not a problem document: a proxy's, or that of another kind of server."""
    words = answer.body[:200].decode(errors="replace").strip()
    plain = f": {words.splitlines()[0]}" if words and not words.startswith("<") else ""
    status = answer.status if not words or answer.status >= 500 or answer.status in FINAL else 502
    return problem(status, "http_error", f"the server answered {answer.status}{plain}; is it a Stoker server?")


def params(**values: Any) -> Params:
    """Query parameters: None is left out, a sequence is repeated, a bool is true or false."""
    out: list[tuple[str, str]] = []
    for name, value in values.items():
        many = value if isinstance(value, (list, tuple)) else [value]
        out.extend((name, _text(one)) for one in many if one is not None)
    return out


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None
