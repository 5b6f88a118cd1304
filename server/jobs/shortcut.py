"""The plain submit without the framework: `POST /v1/jobs` with a JSON body and nothing out of the ordinary.

Routing, dependencies and exit stacks cost the framework more than the whole submit. What this layer does not take (a query, YAML,
another project's name, a credential or a key that will be refused) goes to the route, which does the same and also
refuses; refusals of the submit itself are answered by the guard outside.
"""

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from server.auth import Principal
from server.deps import Runtime
from server.idempotency import Claim, fingerprint, valid
from server.jobs.intake import submit
from server.jobs.routes import create_job, router
from stoker.document.document import Document

_PATH = "/v1/jobs"
_ROUTE = next(route for route in router.routes if getattr(route, "endpoint", None) is create_job)
"""What the request is counted under."""


class Shortcut:
    """Wraps the app, inside the guard, which has authenticated the request and read its body."""

    def __init__(self, app: ASGIApp, state: Any) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = _plain_key(scope) if scope["type"] == "http" else None
        if key is None:
            await self._app(scope, receive, send)
            return
        runtime: Runtime = self._state.runtime
        who: Principal = scope["stoker.credential"]
        scope["route"] = _ROUTE
        body: bytes = (await receive())["body"]
        project = who.project or "default"
        claim = Claim(project, key, fingerprint("POST", _PATH + "?", body)) if key else None
        answer, replayed = await submit(runtime, who, project, Document(scope["stoker.json"]), body, (), claim)
        await answer.response(replayed=replayed)(scope, receive, send)


def _plain_key(scope: Scope) -> str | None:
    """The Idempotency-Key of a request that is plain, empty without one; None for a request that is not."""
    if scope["method"] != "POST" or scope["path"] != _PATH or scope["query_string"]:
        return None
    who = scope.get("stoker.credential")
    if not isinstance(who, Principal) or not who.may("submit") or not isinstance(scope.get("stoker.json"), dict):
        return None
    names = [name for name, _ in scope["headers"]]
    if b"stoker-project" in names or names.count(b"idempotency-key") > 1:
        return None
    if b"idempotency-key" not in names:
        return ""
    key: str = scope["headers"][names.index(b"idempotency-key")][1].decode("latin-1")
    return key if valid(key) else None
