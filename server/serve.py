"""Listening: uvicorn on uvloop and httptools, with deadlines, behind the guard."""

import os
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from server.app import create_app, guarded
from server.http import Protocol
from server.settings import Settings

BACKLOG = 2048


def application() -> ASGIApp:
    """What each server process runs; its settings come from the environment."""
    return whole(Settings())


def whole(settings: Settings) -> ASGIApp:
    """The application behind its guard, and the deadline of its connections."""
    Protocol.deadline = settings.header_timeout
    return guarded(create_app(settings))


def options(settings: Settings) -> dict[str, Any]:
    """Uvicorn's settings. uvloop sets TCP_NODELAY on every connection."""
    return {
        "host": settings.host,
        "port": settings.port,
        "loop": "uvloop",
        "http": "server.http:Protocol",
        "ws": "none",
        "lifespan": "on",
        "backlog": BACKLOG,
        "limit_concurrency": 2 * settings.limit_concurrency,
        "timeout_keep_alive": 15,
        "timeout_graceful_shutdown": 5,
        "server_header": False,
        "access_log": False,
        "proxy_headers": settings.behind_proxy,
        "log_config": None,
    }


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    if settings.processes == 1:
        uvicorn.Server(uvicorn.Config(whole(settings), **options(settings))).run()
        return
    os.environ["STOKER_BEHIND_PROXY"] = str(settings.behind_proxy)
    os.environ["STOKER_HOST"] = settings.host
    uvicorn.run("server.serve:application", factory=True, workers=settings.processes, **options(settings))
