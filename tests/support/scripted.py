"""A small HTTP server on loopback that behaves as a test says: connections cut in mid-stream, damaged bytes, missing blobs."""

import contextlib
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

TIME = "2026-01-01T00:00:00Z"


def job(state: str = "running", **changes: Any) -> dict[str, Any]:
    """A job as the server shows it."""
    plain: dict[str, Any] = {
        "id": "job_1", "name": "digits", "project": "default", "labels": {}, "kind": "train", "state": state, "phase": None,
        "reason": None, "outcome": "completed" if state == "succeeded" else None, "desired": "run", "priority": 0,
        "created_at": TIME, "queued_at": TIME, "started_at": TIME, "finished_at": None if state == "running" else TIME,
        "progress": {"step": 10, "total_steps": 20, "fraction": 0.5}, "attempt": 1, "epoch": 1, "spec_digest": "d" * 64,
        "parent_id": None, "resources": {}, "objective": None, "error": None, "last_event": 1, "links": {}, "metrics": {},
    }  # fmt: skip
    return plain | changes


def event(seq: int, type: str = "metrics", **data: Any) -> dict[str, Any]:
    return {"seq": seq, "type": type, "created_at": TIME, "epoch": 1, "data": data}


class Cut(Exception):
    """Raised in a body to break the connection off."""


@dataclass
class Scripted:
    """What the server does and what it saw."""

    url: str = ""
    seen: list[Request] = field(default_factory=list)
    handler: Callable[[Request], Any] = lambda _: Response(status_code=404)

    async def answer(self, request: Request) -> Response:
        self.seen.append(request)
        answer: Response = self.handler(request)
        if hasattr(answer, "__await__"):
            answer = await answer
        return answer


@contextlib.contextmanager
def serve(handler: Callable[[Request], Any]) -> Iterator[Scripted]:
    """The server, until the block ends."""
    script = Scripted(handler=handler)
    app = Starlette(routes=[Route("/{path:path}", script.answer, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])])
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    started = threading.Event()
    startup = server.startup

    async def announce(sockets: Any = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = announce  # type: ignore[method-assign]
    thread.start()
    assert started.wait(30)
    script.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield script
    finally:
        server.should_exit = True
        thread.join(10)


def problem(status: int, code: str, **more: Any) -> JSONResponse:
    body = {
        "type": f"/v1/problems/{code}",
        "title": code,
        "status": status,
        "code": code,
        "detail": f"{code} happened",
    }
    return JSONResponse(body | more, status, media_type="application/problem+json")


def sse(events: list[dict[str, Any]], *, cut: bool) -> StreamingResponse:
    """The events as a stream; with `cut` the connection breaks off in the middle of one more event."""

    async def body() -> AsyncIterator[bytes]:
        for one in events:
            yield f"id: {one['seq']}\nevent: {one['type']}\ndata: {json.dumps(one)}\n\n".encode()
        if cut:
            yield b'id: 999\nevent: metrics\ndata: {"seq": 999, "ty'
            raise Cut

    return StreamingResponse(body(), media_type="text/event-stream")


def ranged(request: Request, data: bytes, *, stop: int | None = None) -> Response:
    """Bytes with ranges; with `stop` the connection breaks off after so many."""
    sha = hashlib.sha256(data).hexdigest()
    start, status = 0, 200
    if (asked := request.headers.get("range")) and request.headers.get("if-range") == f'"{sha}"':
        start, status = int(asked.removeprefix("bytes=").split("-")[0]), 206
    part = data[start:]
    headers = {"ETag": f'"{sha}"', "Content-Length": str(len(part))}
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"

    async def body() -> AsyncIterator[bytes]:
        yield part[:stop]
        if stop is not None and stop < len(part):
            raise Cut

    return StreamingResponse(body(), status, headers)
