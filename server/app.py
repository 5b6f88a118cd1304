"""The server: its parts opened and closed on one screen, its routes, its guard."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

import server.artifacts.routes
import server.attempts.routes
import server.blobs.routes
import server.checkpoints.routes
import server.datasets.routes
import server.events.routes
import server.families.routes
import server.jobs.routes
import server.logs.routes
import server.meta
import server.metrics.routes
import server.plans.routes
import server.tokens.routes
import server.workers.routes
from server.auth import Authenticator, Credential
from server.blobs.settings import BlobSettings
from server.blobs.store import open_store
from server.db import Database
from server.deps import Runtime
from server.errors import Refusal, from_exception, to_response
from server.guard import Guard, defect
from server.hub import Hub
from server.jobs.intake import Intake
from server.leader import Leader
from server.openapi import document, everywhere
from server.queue import Hints
from server.rates import Rates
from server.reaper import Reaper
from server.scheduler import Scheduler
from server.settings import Settings
from server.telemetry import Telemetry
from stoker.errors import SpecError

ROUTERS = (
    server.meta.router,
    server.jobs.routes.router,
    server.events.routes.router,
    server.metrics.routes.router,
    server.logs.routes.router,
    server.checkpoints.routes.router,
    server.artifacts.routes.router,
    server.datasets.routes.router,
    server.blobs.routes.router,
    server.plans.routes.router,
    server.families.routes.router,
    server.workers.routes.router,
    server.attempts.routes.router,
    server.tokens.routes.router,
)


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[None]:
    """Open everything, run the background work, close in reverse."""
    settings: Settings = app.state.settings
    async with AsyncExitStack() as stack:
        hub, hints, telemetry = Hub(), Hints(settings.redis_url), app.state.telemetry
        hub.open(asyncio.get_running_loop())
        db = Database(settings.database, patience=settings.database_patience)
        stack.callback(db.close)
        db.info["hub"] = hub
        blobs = open_store(BlobSettings(state_dir=settings.state_dir))
        leader = Leader(db)
        stack.callback(leader.close)
        hints.open()
        stack.callback(hints.close)
        rates = Rates(settings.requests_per_second, settings.request_burst)
        scheduler = Scheduler(db, hub, hints, settings.timers, telemetry)
        reaper = Reaper(db, blobs, scheduler, leader, settings.timers, telemetry)
        app.state.runtime = Runtime(
            settings,
            db,
            hub,
            Authenticator(db, settings.pepper, rates),
            hints,
            telemetry,
            blobs,
            Intake(db, settings),
        )
        for work in (scheduler.run(), reaper.run()):
            stack.push_async_callback(_stop, asyncio.create_task(work))
        hub.wake()
        stack.callback(hub.close)
        yield


async def _stop(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def create_app(settings: Settings) -> FastAPI:
    """The bare application; `guarded` is what is served."""
    app = FastAPI(
        title="Stoker",
        version=server.meta.stoker_version(),
        description="Plans, places, runs and guarantees training jobs.",
        lifespan=running,
        redirect_slashes=False,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        responses=everywhere(),
        exception_handlers={
            HTTPException: _answer,
            RequestValidationError: _answer,
            Refusal: _answer,
            SpecError: _answer,
            Exception: _answer,
        },
    )
    app.state.settings, app.state.telemetry = settings, Telemetry()
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    return app


def guarded(app: FastAPI) -> ASGIApp:
    """The application behind its guard."""

    async def authenticate(header: str, address: str) -> Credential:
        runtime: Runtime = app.state.runtime
        return await runtime.authenticator.authenticate(header, address)

    return Guard(app, app.state.settings, authenticate, app.state.telemetry)


async def _answer(request: Request, error: Exception) -> Response:
    refusal = from_exception(error) or defect()
    return to_response(refusal, request.scope.get("stoker.request_id"))
