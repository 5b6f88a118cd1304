"""Every error that Stoker's public face raises, and the problem document (RFC 9457) they travel in.

StokerError
├── SpecError            the document does not fit the grammar or a rule; carries every finding (exit 2)
├── ConfigError          no server, no key, an unreadable file (exit 2)
├── ServerUnreachable    no answer from the server (exit 7)
├── WaitTimeout          the job still runs (exit 6)
├── DownloadError        bytes do not hash to their name (exit 1)
└── ApiError             the server answered with a problem
    ├── AuthError        401, 403 (exit 4)
    ├── NotFound         404 (exit 10)
    ├── Conflict         409, 412 (exit 2)
    ├── Invalid          400, 413, 415, 422 … (exit 2)
    ├── QuotaExceeded    403 quota_exceeded, 429 (exit 8)
    └── ServerFault      5xx (exit 7)
"""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

DOCS = "/v1/problems/"
"""Prefix of a problem's `type`: relative to the server, which explains the code there (RFC 9457, section 3.1.1)."""


class Finding(BaseModel):
    """One thing that is wrong with a document."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    pointer: str = ""
    """JSON pointer into the document, `/optimizer/lr`."""
    code: str
    """Kebab-case kind, `unknown-key`, or the id of a rule."""
    message: str
    hint: str | None = None
    """What to do."""
    allowed: tuple[str, ...] | None = None
    """Values that would pass, when they are few."""
    severity: str = "error"
    """error or warning; a document with warnings alone is accepted."""


class Problem(BaseModel):
    """An `application/problem+json` body (RFC 9457)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None = None
    errors: tuple[Finding, ...] = ()


class StokerError(Exception):
    """Root of the tree."""

    exit_code = 1


class SpecError(StokerError):
    """The document does not fit; `findings` holds every error and warning, sorted as they stand in it."""

    exit_code = 2

    def __init__(self, findings: Sequence[Finding], rendered: str | None = None) -> None:
        self.findings = tuple(findings)
        self.rendered = rendered
        """The findings drawn with line, column and caret, when the source text is known."""
        super().__init__(rendered or "; ".join(f"{f.pointer or '/'}: {f.message}" for f in self.findings))


class ConfigError(StokerError):
    """The client does not know where or as whom to ask."""

    exit_code = 2


class ServerUnreachable(StokerError):
    """No answer from the server within the retries."""

    exit_code = 7


class WaitTimeout(StokerError):
    """The time to wait passed; the job still runs."""

    exit_code = 6


class DownloadError(StokerError):
    """A downloaded file does not have the digest its manifest promises."""


class ApiError(StokerError):
    """The server answered with a problem."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        self.problem = problem
        self.retry_after = retry_after
        super().__init__(problem.detail or problem.title)


class AuthError(ApiError):
    """The key is missing, wrong, expired, or may not do this."""

    exit_code = 4


class NotFound(ApiError):
    """No such thing, or not in this key's project."""

    exit_code = 10


class Conflict(ApiError):
    """The thing is not in a state that allows this."""

    exit_code = 2


class Invalid(ApiError):
    """The request does not fit; `problem.errors` lists every finding."""

    exit_code = 2


class QuotaExceeded(ApiError):
    """Too many or too much; `retry_after` says when to come back, in seconds, if that helps."""

    exit_code = 8


class ServerFault(ApiError):
    """The server could not; trying again later may help."""

    exit_code = 7


def from_problem(problem: Problem, retry_after: float | None = None) -> ApiError:
    """The class that fits a problem's status and code."""
    return _class_of(problem)(problem, retry_after)


def _class_of(problem: Problem) -> type[ApiError]:
    if problem.code in ("quota_exceeded", "rate_limited", "too_many_streams", "queue_full"):
        return QuotaExceeded
    by_status: dict[int, type[ApiError]] = {401: AuthError, 403: AuthError, 404: NotFound, 409: Conflict, 412: Conflict}
    if problem.status >= 500:
        return ServerFault
    return by_status.get(problem.status, Invalid)


def problem(status: int, code: str, detail: str, **more: Any) -> Problem:
    """A problem with the published type URL and a title made of its code."""
    return Problem(type=DOCS + code, title=code.replace("_", " "), status=status, code=code, detail=detail, **more)
