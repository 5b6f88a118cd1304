"""How errors are shown: what happened, why, what to do, the documentation, the request id. Returns the exit code."""

import os
import sys

from stoker.errors import ApiError, AuthError, ConfigError, QuotaExceeded, ServerUnreachable, SpecError, StokerError, WaitTimeout


class Failure(StokerError):
    """A command that cannot go on, with its remedy."""

    def __init__(self, message: str, remedy: str | None = None, code: int = 1) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.exit_code = code


def report(error: BaseException) -> int:
    """Write the error to stderr; the exit code."""
    for line in lines(error):
        print(line, file=sys.stderr)
    match error:
        case StokerError():
            return error.exit_code
        case OSError():
            return 2  # a path that was given cannot be used; 1 would say that a job failed
        case _:
            return 1


def lines(error: BaseException) -> list[str]:
    """The message as lines, without color."""
    match error:
        case Failure():
            # Ctrl-C is the user's wish, not an error.
            return [f"{'' if error.exit_code == 130 else 'error: '}{error}", *_help(error.remedy)]
        case SpecError():
            return [str(error)] if error.rendered else [f"error: {error}"]
        case ApiError():
            return _api(error)
        case ServerUnreachable():
            return [f"error: {error}", *_help("is it running? `stoker up` starts one here; --url or STOKER_URL names another")]
        case WaitTimeout() | ConfigError() | StokerError():
            return [f"error: {error}"]
        case OSError() if error.filename is not None:
            return [f"error: {error.filename}: {error.strerror}"]
        case OSError():
            return [f"error: {error}"]
        case _:
            more = [] if os.environ.get("STOKER_DEBUG") else _help("this is a defect in Stoker; `stoker --debug …` shows where")
            return [f"error: {type(error).__name__}: {error}", *more]


def _api(error: ApiError) -> list[str]:
    problem = error.problem
    out = [f"error[{problem.code}]: {problem.detail or problem.title}"]
    for finding in problem.errors:
        hint = f" ({finding.hint})" if finding.hint else ""
        out.append(f"  {finding.pointer or '/'}: {finding.message}{hint}")
    out += _help(_remedy(error))
    out.append(f"  docs: {problem.type}")
    if problem.request_id:
        out.append(f"  request: {problem.request_id}")
    return out


def _remedy(error: ApiError) -> str | None:
    match error:
        case AuthError() if error.problem.status == 401:
            return "set STOKER_KEY or pass --key; `stoker doctor` shows which key is used"
        case AuthError():
            return "use a key with the scope this needs; an administrator makes one with `stoker keys create`"
        case QuotaExceeded() if error.retry_after is not None:
            return f"try again in {error.retry_after:g} s"
        case _:
            return REMEDIES.get(error.problem.code)


REMEDIES = {
    "illegal_transition": "`stoker show` says what state it is in; `stoker retry` runs a failed or cancelled one again",
    "not_found": "`stoker ls`, `stoker datasets ls` and `stoker checkpoints` list what there is",
    "own_key": "`stoker keys create` makes another",
}
"""What to do about a refusal, by its code, where the server's words leave that open."""


def _help(text: str | None) -> list[str]:
    return [f"  help: {text}"] if text else []
