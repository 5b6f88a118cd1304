"""The outermost layer, pure ASGI: what may come in at all, who asks, and how everything that goes wrong is answered.

In this order: request id, host, sizes, credential, content type, body. Nothing inside sees a request that failed one of
them; nothing outside sees an exception.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, overload

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.auth import Credential, unauthenticated
from server.errors import Refusal, from_exception, problem, to_response, unavailable
from server.settings import Settings
from server.telemetry import Telemetry
from stoker.document.strict_json import JsonRejected, strict_json
from stoker.frames import MEDIA_TYPE as FRAMES

log = logging.getLogger("stoker.server")
access = logging.getLogger("stoker.access")

Authenticate = Callable[[str, str], Awaitable[Credential]]
PUBLIC = frozenset({"/healthz", "/readyz", "/version"})
"""The only paths that answer without a key, compared whole, never by prefix."""
DOCS = frozenset({"/openapi.json", "/docs"})
MAX_HEADERS, MAX_HEADER_BYTES, MAX_URI = 100, 32_768, 8192
MIB = 1 << 20
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_BODIES = frozenset({"POST", "PUT", "PATCH"})
_JSON, _YAML, _BYTES = "application/json", "application/yaml", "application/octet-stream"
_IN_THREAD = 64 * 1024
"""Bodies larger than this are parsed in a thread, so that others are not kept waiting."""
_SAFE_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_CSP = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class Headers:
    """A request's headers, decoded once. Names are lower case, as ASGI has them."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in raw:
            self._values.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def getlist(self, name: str) -> list[str]:
        return self._values.get(name, [])

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    def get(self, name: str, default: str | None = None) -> str | None:
        """The first of the name."""
        values = self._values.get(name)
        return values[0] if values else default


@dataclass(frozen=True)
class BodyRule:
    """What a route takes."""

    types: tuple[str, ...] = (_JSON,)
    limit: int = MIB
    optional: bool = False
    """Whether no body at all will do."""
    streamed: bool = False
    """The endpoint reads it piece by piece and limits it itself."""
    seconds: float = 1.0
    """Time to receive it, in body time-outs."""


_RULES: tuple[tuple[re.Pattern[str], BodyRule], ...] = (
    (re.compile(r"/v1/blobs/[^/]*"), BodyRule((_BYTES,), streamed=True, optional=True)),
    (re.compile(r"/v1/attempts/[^/]*/report"), BodyRule((FRAMES,), 32 * MIB, optional=True, seconds=6)),
    (re.compile(r"/v1/jobs|/v1/plans|/v1/jobs/by-name/[^/]*"), BodyRule((_JSON, _YAML))),
    (re.compile(r"/v1/datasets"), BodyRule(limit=32 * MIB, seconds=6)),
    (re.compile(r"/v1/.*/(cancel|pause|resume|retry|archive|drain|revoke)"), BodyRule(optional=True)),
)


class Guard:
    """Wraps the app."""

    def __init__(self, app: ASGIApp, settings: Settings, authenticate: Authenticate, telemetry: Telemetry) -> None:
        self._app, self._settings, self._authenticate, self._telemetry = app, settings, authenticate, telemetry
        self._hosts = settings.hosts
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = dict(scope)  # the server below keeps its own: it still has to know a HEAD when it sees the answer
        headers, began = Headers(scope["headers"]), time.perf_counter()
        given = headers.get("x-request-id", "")
        answer = _Answer(scope, send, given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
        self._in_flight += 1
        try:
            await self._admit(scope, headers, receive, answer)
        except _Gone:
            pass
        except Exception as error:
            await self._refuse(scope, receive, answer, error)
        finally:
            self._in_flight -= 1
            self._record(scope, answer, time.perf_counter() - began)

    async def _admit(self, scope: Scope, headers: Headers, receive: Receive, answer: "_Answer") -> None:
        scope["stoker.method"], scope["stoker.request_id"] = scope["method"], answer.request_id
        if scope["method"] == "HEAD":
            scope["method"] = "GET"
        _check_sizes(scope, headers)
        if _host_of(headers.get("host", "")) not in self._hosts:
            raise problem(421, "host_not_allowed", "This server does not answer for that host.")
        public = scope["path"] in PUBLIC or (self._settings.public_docs and scope["path"] in DOCS)
        if not public:
            if self._in_flight > self._settings.limit_concurrency:
                raise unavailable("overloaded", "Too many requests at once; come back in a moment.")
            scope["stoker.credential"] = await self._identify(scope, headers)
        if scope["method"] in _BODIES:
            receive = await self._body(scope, headers, receive)
        await self._app(scope, receive, answer)

    async def _identify(self, scope: Scope, headers: Headers) -> Credential:
        given = headers.getlist("authorization")
        if len(given) != 1 or len(given[0]) > 200 or not given[0].isascii():
            raise unauthenticated()
        return await self._authenticate(given[0], (scope.get("client") or ("?", 0))[0])

    async def _body(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        rule = next((r for pattern, r in _RULES if pattern.fullmatch(scope["path"])), BodyRule())
        length = _length(headers)
        if headers.get("content-encoding", "identity") != "identity":
            raise problem(415, "unsupported_content_encoding", "Send the body uncompressed.")
        empty = length in (None, 0) and "transfer-encoding" not in headers
        media = _media_type(headers.get("content-type"))
        if not (empty and rule.optional) and media not in rule.types:
            raise problem(415, "unsupported_media_type", f"Send {' or '.join(rule.types)} in UTF-8.")
        seconds = self._settings.body_timeout * rule.seconds
        if rule.streamed:
            return _paced(receive, seconds)
        if length is not None and length > rule.limit:
            raise _too_large(rule.limit)
        body = await _read(receive, rule.limit, seconds)
        if media == _JSON and not (rule.optional and not body):
            scope["stoker.json"] = await _strict(body, rule.limit)
        return _replay(body, receive)

    async def _refuse(self, scope: Scope, receive: Receive, answer: "_Answer", error: Exception) -> None:
        refusal = from_exception(error)
        if refusal is None:
            log.exception("request %s failed", answer.request_id)
            refusal = defect()
        if answer.finished:
            return
        if answer.started:
            raise _Aborted from error  # the answer is under way: the only honest thing left is to cut it
        await to_response(refusal, answer.request_id)(scope, receive, answer)

    def _record(self, scope: Scope, answer: "_Answer", seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self._telemetry.request(
            scope["stoker.method"] if "stoker.method" in scope else scope["method"], route, answer.status, seconds
        )
        if self._settings.access_log:
            path = scope.get("raw_path", b"").decode("ascii", "replace")[:200]
            access.info("%s %s %d %.1fms %s", scope["stoker.method"], path, answer.status, seconds * 1000, answer.request_id)


def defect() -> Refusal:
    """What a client is told of a defect of ours: 503, so that it tries again, and nothing else."""
    return unavailable("server_error", "The server failed on this request; its log has the request id.")


class _Gone(Exception):
    """The client hung up before its request was whole."""


class _Aborted(Exception):
    """An answer was cut short."""


class _Answer:
    """`send` with the headers that every answer has, and without a body for HEAD."""

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self._head, self._send, self.request_id = scope["method"] == "HEAD", send, request_id
        self.started = self.finished = False
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            names = {name.lower() for name, _ in message["headers"]}
            more = [*_SAFE_HEADERS, (b"x-request-id", self.request_id.encode())]
            if b"content-security-policy" not in names:
                more.append(_CSP)
            if b"cache-control" not in names:
                more.append((b"cache-control", b"no-store"))
            message = {**message, "headers": [*message["headers"], *more]}
        elif self._head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)
        self.finished = message["type"] == "http.response.body" and not message.get("more_body", False)


def _check_sizes(scope: Scope, headers: Headers) -> None:
    if len(scope.get("raw_path", b"")) + len(scope["query_string"]) > MAX_URI:
        raise problem(414, "uri_too_long", f"The URI is longer than {MAX_URI} bytes.")
    if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
        raise problem(400, "bad_request", "The target holds U+0000.")
    raw = scope["headers"]
    if len(raw) > MAX_HEADERS or sum(len(k) + len(v) for k, v in raw) > MAX_HEADER_BYTES:
        raise problem(431, "headers_too_large", f"More than {MAX_HEADERS} headers or {MAX_HEADER_BYTES} bytes of them.")
    lengths = set(headers.getlist("content-length"))
    if len(lengths) > 1 or (lengths and "transfer-encoding" in headers):
        raise problem(400, "ambiguous_length", "The length of the body is given twice.")
    if len(headers.getlist("host")) > 1:
        raise problem(400, "bad_request", "More than one Host.")


def _host_of(header: str) -> str:
    """The name without its port; `[::1]:80` → `::1`."""
    name = header.rpartition("]")[0].removeprefix("[") if header.startswith("[") else header.partition(":")[0]
    return name.lower()


def _length(headers: Headers) -> int | None:
    text = headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise problem(400, "bad_request", "Content-Length is not a number.")
    return int(text)


def _media_type(header: str | None) -> str | None:
    """The type without parameters, or None for another charset than UTF-8."""
    if header is None:
        return None
    media, *parameters = [part.strip().lower() for part in header.split(";")]
    charsets = {p.partition("=")[2].strip('" ') for p in parameters if p.startswith("charset")}
    return media if charsets <= {"utf-8"} else None


def _too_large(limit: int) -> Refusal:
    return problem(413, "body_too_large", f"The body is larger than {limit} bytes.", headers={"Connection": "close"})


async def _read(receive: Receive, limit: int, seconds: float) -> bytes:
    pieces, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise _Gone
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > limit:
                    raise _too_large(limit)
                if not message.get("more_body", False):
                    return b"".join(pieces)
    except TimeoutError as error:
        raise problem(408, "request_timeout", "The body did not arrive in time.", headers={"Connection": "close"}) from error


async def _strict(body: bytes, limit: int) -> Any:
    values = 100_000 if limit <= MIB else 1_000_000
    try:
        if len(body) > _IN_THREAD:
            return await asyncio.to_thread(strict_json, body, max_values=values)
        return strict_json(body, max_values=values)
    except JsonRejected as error:
        raise problem(400, error.code, error.detail) from error


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _paced(receive: Receive, seconds: float) -> Receive:
    """Each piece of a streamed body within the time; a client that stalls is refused."""
    whole = False

    async def next_piece() -> Message:
        nonlocal whole
        if whole:
            return await receive()
        try:
            async with asyncio.timeout(seconds):
                message = await receive()
        except TimeoutError as error:
            raise problem(408, "request_timeout", "The upload stalled.", headers={"Connection": "close"}) from error
        whole = not message.get("more_body", False)
        return message

    return next_piece
