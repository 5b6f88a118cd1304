"""Refusals: `raise problem(404, "not_found", "…")` anywhere in routes and services becomes an RFC 9457 answer.

Nothing here ever repeats what the client sent, except key names that look like identifiers.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response

from stoker.errors import Finding, Problem, SpecError
from stoker.errors import problem as make_problem
from stoker.text import counted

MEDIA_TYPE = "application/problem+json"
UNKNOWN = "The database does not answer; a write may have been stored, so look, or repeat it under its Idempotency-Key."
"""A connection that is lost at a commit, or a flush that fails, leaves open what became of it."""


class Refusal(Exception):
    """A request that is answered with a problem. Raised in a write, it also undoes that write."""

    def __init__(
        self, status: int, code: str, detail: str, *, errors: Sequence[Finding] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        self.status, self.code, self.detail = status, code, detail
        self.errors, self.headers = tuple(errors), dict(headers or {})
        super().__init__(f"{status} {code}")


def problem(
    status: int, code: str, detail: str, *, errors: Sequence[Finding] = (), headers: Mapping[str, str] | None = None
) -> Refusal:
    """The exception to raise: `raise problem(409, "illegal_transition", "The job has ended.")`."""
    return Refusal(status, code, detail, errors=errors, headers=headers)


def not_found() -> Refusal:
    """One answer for what does not exist and for what belongs to another project, so that ids cannot be probed."""
    return problem(404, "not_found", "There is no such thing, or this key may not see it.")


def unavailable(code: str, detail: str, *, retry_after: float = 1) -> Refusal:
    """503 with Retry-After in seconds."""
    return problem(503, code, detail, headers={"Retry-After": str(max(1, round(retry_after)))})


def spec_problem(error: SpecError) -> Refusal:
    """422 with every finding of a document; absurd sizes have their own code."""
    findings = tuple(tidy(f) for f in error.findings)
    if any(f.code in ("estimate_exceeds_limit", "estimate-exceeds-limit") for f in findings):
        return problem(422, "estimate_exceeds_limit", "The job is larger than any machine could run.", errors=findings)
    return problem(422, "spec_invalid", f"The document has {counted(len(findings), 'error')}.", errors=findings)


def tidy(finding: Finding) -> Finding:
    """The finding with its pointer reduced to what may be repeated."""
    pointer = "".join("/" + _part(p) for p in finding.pointer.split("/")[1:]) if finding.pointer else ""
    return finding.model_copy(update={"pointer": pointer})


def to_response(refusal: Refusal, request_id: str | None) -> Response:
    """The answer that a refusal becomes."""
    body: Problem = make_problem(
        refusal.status, refusal.code, refusal.detail, request_id=request_id, errors=tuple(refusal.errors)
    )
    headers = {"Cache-Control": "no-store", **refusal.headers}
    return Response(body.model_dump_json(exclude_none=True), refusal.status, headers, MEDIA_TYPE)


def from_exception(error: Exception) -> Refusal | None:
    """The refusal that any known exception amounts to; None for a defect of ours."""
    match error:
        case Refusal():
            return error
        case SpecError():
            return spec_problem(error)
        case RequestValidationError():
            return problem(422, "validation_failed", "The request does not fit.", errors=_validation(error.errors()))
        case HTTPException():
            return _from_http(error)
        case PoolTimeout() | DBAPIError():
            return _from_database(error)
        case _:
            return None


_HTTP = {
    400: ("bad_request", "The request is malformed."),
    404: ("not_found", "There is no such thing, or this key may not see it."),
    405: ("method_not_allowed", "This resource does not have that method; see the Allow header."),
}


def _from_http(error: HTTPException) -> Refusal:
    code, detail = _HTTP.get(error.status_code, ("refused", "The request was refused."))
    return problem(error.status_code, code, detail, headers=dict(error.headers or {}))


def _from_database(error: Exception) -> Refusal | None:
    text = str(getattr(error, "orig", "") or "").lower()
    if "disk is full" in text or "no space left" in text or "disk full" in text:
        return problem(507, "storage_full", "The server's storage is full; nothing was stored.", headers={"Retry-After": "30"})
    if "readonly" in text or "read-only" in text:
        return unavailable("read_only", "The database takes no writes at the moment.", retry_after=30)
    if isinstance(error, IntegrityError):
        return problem(409, "conflict", "Another request did the same at this moment; ask again.", headers={"Retry-After": "1"})
    if isinstance(error, DataError):
        return problem(422, "validation_failed", "A value does not fit what the server can store.")
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout) or getattr(error, "connection_invalidated", False):
        return unavailable("database_unavailable", UNKNOWN, retry_after=2)
    return None


_SAFE = re.compile(r"[\w.@-]{1,64}", re.ASCII)


def _part(part: Any) -> str:
    text = str(part)
    return text if _SAFE.fullmatch(text) else "?"


def _validation(errors: Sequence[Any]) -> list[Finding]:
    return [
        Finding(
            pointer="".join("/" + _part(p) for p in e.get("loc", ())[1:]),
            code=str(e.get("type", "invalid")).replace("_", "-"),
            message=_message(e),
        )
        for e in errors[:100]
    ]


def _message(error: Mapping[str, Any]) -> str:
    """Pydantic's sentence, unless it repeats the input."""
    if error.get("type") == "union_tag_invalid":
        return f"Choose one of {error.get('ctx', {}).get('expected_tags', '')}"
    if error.get("type") in ("value_error", "assertion_error", "json_invalid", "string_pattern_mismatch"):
        pattern = error.get("ctx", {}).get("pattern")
        return f"Does not match {pattern}" if pattern else "Invalid value"
    return str(error.get("msg", "Invalid value"))[:300]
