"""API keys. The secret is shown once, when the key is made."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session
from starlette.responses import Response

from server.auth import key_of
from server.deps import Admin, Db, Run
from server.errors import problem
from server.idempotency import Answer, once
from server.openapi import refusals
from server.paging import After, Limit, page
from server.tokens import service
from stoker.spec.base import Name
from stoker.views import KeyView, Page

router = APIRouter(tags=["keys"])


class NewKey(BaseModel):
    """What a new key may do."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name
    scopes: Annotated[list[Literal["read", "submit", "admin", "worker"]], Field(min_length=1, max_length=4)]
    project: Name | None = None
    """Null: every project, which only a key of every project may grant."""
    expires_in_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    """Unset: 90 days, or what the operator chose."""


@router.post("/v1/keys", status_code=201, response_model=KeyView, responses=refusals(409))
async def create_key(request: Request, asked: NewKey, db: Db, runtime: Run, who: Admin) -> Response:
    """Make a key. The answer, and its repetition under the same Idempotency-Key, is the only place where it is shown."""
    project = asked.project or who.project
    if who.project is not None and project != who.project:
        raise problem(403, "wrong_project", "A key of one project grants no other.")

    def work(session: Session) -> Answer:
        expires = service.expiry(asked.expires_in_days, runtime.settings.key_days)
        made = service.create(
            session, runtime.settings.pepper, name=asked.name, scopes=asked.scopes, project=project, expires_at=expires
        )
        kept = made.model_copy(update={"key": None}).model_dump_json()
        return Answer(201, kept.encode(), {"Location": f"/v1/keys/{made.id}", "Cache-Control": "no-store"})

    def reveal(body: bytes) -> bytes:
        made = KeyView.model_validate_json(body)
        return made.model_copy(update={"key": key_of(runtime.settings.pepper, made.id)[0]}).model_dump_json().encode()

    return await once(request, db, who.project or "", work, reveal=reveal)


@router.get("/v1/keys")
async def list_keys(db: Db, who: Admin, limit: Limit = 100, after: After = None) -> Page[KeyView]:
    """Keys without their secrets, oldest first."""
    rows = await db.read(lambda s: service.visible(s, who, after, limit))
    return page(rows, limit, lambda r: str(r.id), service.view)


@router.delete("/v1/keys/{key_id}", responses=refusals(404, 409))
async def revoke_key(key_id: str, db: Db, who: Admin) -> KeyView:
    """Revoke a key, by id or prefix; in force within a second."""
    return await db.write(lambda s: service.revoke(s, who, key_id))


@router.post("/v1/keys/{key_id}/revoke", responses=refusals(404, 409))
async def revoke_key_by_post(key_id: str, db: Db, who: Admin) -> KeyView:
    """The same as DELETE, for clients that only post."""
    return await db.write(lambda s: service.revoke(s, who, key_id))
