"""How the server is: alive, ready, its version, its metrics, its description."""

import asyncio
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from sqlalchemy import text
from sqlmodel import Session
from starlette.responses import JSONResponse, Response

from server.deps import Admin, Run, credential_of
from server.errors import not_found, problem, unavailable
from server.openapi import refusals

router = APIRouter(tags=["server"])
_PROBE = 2.0
"""Seconds that the database has to answer."""


def stoker_version() -> str:
    try:
        return version("stoker")
    except PackageNotFoundError:
        return "0.1.0"


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses=refusals(503))
async def readyz(runtime: Run) -> dict[str, Any]:
    """The database takes writes. The broker is only reported: without it jobs start a little later."""

    def probe(session: Session) -> int:
        return int(session.execute(text("SELECT 1")).scalar_one())

    try:
        async with asyncio.timeout(_PROBE):
            await runtime.db.write(probe)
    except TimeoutError as error:
        raise unavailable("database_unavailable", "The database does not answer.", retry_after=2) from error
    hints = runtime.hints
    age = None if hints.last_sent_at is None else round(time.monotonic() - hints.last_sent_at, 1)
    return {"status": "ready", "broker": {"last_wake_up_seconds_ago": age, "failed": hints.failed, "sent": hints.sent}}


@router.get("/version")
async def get_version() -> dict[str, str]:
    """Which Stoker this is and which API it speaks."""
    return {"version": stoker_version(), "api": "v1"}


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
async def get_metrics(runtime: Run, who: Admin) -> Response:
    """Prometheus text exposition; for a key of every project, as the numbers are of all of them."""
    if who.project is not None:
        raise problem(403, "insufficient_scope", "The numbers are of every project; so must the key be.")
    body = await runtime.db.read(lambda s: runtime.telemetry.render(s, runtime.hints))
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/openapi.json", include_in_schema=False)
async def get_openapi(request: Request, runtime: Run) -> Response:
    """The OpenAPI document; without a key only where the operator allows it."""
    if not runtime.settings.public_docs:
        credential_of(request)
    return JSONResponse(request.app.openapi())


@router.get("/docs", include_in_schema=False)
async def get_docs(runtime: Run) -> Response:
    """An interactive page of the API, only where the operator allows it: browsers send no key."""
    if not runtime.settings.public_docs:
        raise not_found()
    page = get_swagger_ui_html(openapi_url="/openapi.json", title="Stoker")
    source = "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; style-src https://cdn.jsdelivr.net; "
    page.headers["Content-Security-Policy"] = source + "img-src data: https://fastapi.tiangolo.com; connect-src 'self'"
    return page
