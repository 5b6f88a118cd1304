"""What an endpoint may ask for in its signature.

`db: Db`, `runtime: Run`, `who: Reader | Submitter | Admin | WorkerKey`, `attempt: AttemptToken`, `who: Uploader`,
`project: ProjectName` (the project this request acts in). The guard has authenticated already; these say what is allowed.
"""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Header, Request

from server.auth import AttemptPrincipal, Authenticator, Credential, Principal, Scope, unauthenticated
from server.blobs.store import BlobStore
from server.db import Database
from server.errors import problem
from server.hub import Hub
from server.jobs.intake import Intake
from server.queue import Hints
from server.settings import Settings
from server.telemetry import Telemetry
from stoker.spec.base import NAME_PATTERN


@dataclass
class Runtime:
    """Everything with a lifetime in one server process, at `request.app.state.runtime`."""

    settings: Settings
    db: Database
    hub: Hub
    authenticator: Authenticator
    hints: Hints
    telemetry: Telemetry
    blobs: BlobStore
    intake: Intake
    streams: dict[str, int] = field(default_factory=dict)
    """Open event streams by key id."""


def get_runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


def get_db(request: Request) -> Database:
    return get_runtime(request).db


def credential_of(request: Request) -> Credential:
    """What the guard authenticated. Raises 401 where it did not run."""
    credential: Credential | None = request.scope.get("stoker.credential")
    if credential is None:
        raise unauthenticated()
    return credential


class Require:
    """A dependency: the request carries an API key with the scope. 401 without a key, 403 otherwise."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Principal:
        credential = credential_of(request)
        if not isinstance(credential, Principal):
            raise problem(403, "wrong_credential_kind", "An attempt's token may not do this; use an API key.")
        if not credential.may(self.scope):
            raise problem(403, "insufficient_scope", f"The key lacks the scope {self.scope}.")
        return credential


async def require_attempt(request: Request) -> AttemptPrincipal:
    """A dependency: the request carries the token of the attempt named in the path (`{attempt_id}`)."""
    credential = credential_of(request)
    if not isinstance(credential, AttemptPrincipal) or credential.attempt_id != request.path_params.get("attempt_id"):
        raise problem(403, "wrong_credential_kind", "Only this attempt's own token may do this.")
    return credential


async def require_uploader(request: Request) -> Credential:
    """A dependency: an attempt's token, or a key that may write (submit, admin or worker)."""
    credential = credential_of(request)
    if isinstance(credential, Principal) and not (credential.may("submit") or credential.may("worker")):
        raise problem(403, "insufficient_scope", "The key lacks the scope submit.")
    return credential


async def project_of(
    request: Request,
    stoker_project: Annotated[
        str | None, Header(pattern=NAME_PATTERN, description="Project to act in, for keys that see every project.")
    ] = None,
) -> str:
    """The key's project; for a key of every project, the header `Stoker-Project` or `default`."""
    credential = credential_of(request)
    own = credential.project if isinstance(credential, Principal) else None
    if own is not None and stoker_project not in (None, own):
        raise problem(403, "wrong_project", "The key belongs to another project than Stoker-Project names.")
    return own or stoker_project or "default"


Run = Annotated[Runtime, Depends(get_runtime)]
Db = Annotated[Database, Depends(get_db)]
Reader = Annotated[Principal, Depends(Require("read"))]
Submitter = Annotated[Principal, Depends(Require("submit"))]
Admin = Annotated[Principal, Depends(Require("admin"))]
WorkerKey = Annotated[Principal, Depends(Require("worker"))]
AttemptToken = Annotated[AttemptPrincipal, Depends(require_attempt)]
Uploader = Annotated[Credential, Depends(require_uploader)]
ProjectName = Annotated[str, Depends(project_of)]
