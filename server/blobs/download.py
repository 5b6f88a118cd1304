"""Blobs as HTTP answers: ETag = digest, Range, If-Range, If-None-Match, large pieces read ahead in a thread."""

import asyncio
import base64
from collections.abc import AsyncIterator, Generator
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from server.blobs.ranges import Unsatisfiable, span_of
from server.blobs.store import BlobStore
from server.errors import problem, unavailable

IMMUTABLE = "private, max-age=31536000, immutable"
"""Cache-Control of a URL that always names the same bytes."""
REVALIDATE = "private, no-cache"


def is_head(request: Request) -> bool:
    """Whether only the headers are asked for; the guard routes HEAD as GET and keeps what it was."""
    return bool(request.scope.get("stoker.method", request.method) == "HEAD")


async def serve(
    request: Request, store: BlobStore, sha256: str, size: int, *, media_type: str, filename: str, cache: str = REVALIDATE
) -> Response:
    """Answer a GET or HEAD with a blob, as an attachment that no browser runs.

    Raises 503 `blob_unavailable` when its bytes cannot be read, before anything is sent.
    """
    etag = f'"{sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": cache,
        "Content-Type": media_type,
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Content-Disposition": _attachment(filename),
        "Repr-Digest": f"sha-256=:{_base64(sha256)}:",
    }
    if _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers={"ETag": etag, "Cache-Control": cache})
    try:
        span = span_of(request.headers.get("range"), request.headers.get("if-range"), etag, size)
    except Unsatisfiable:
        told = {"Content-Range": f"bytes */{size}", "ETag": etag, "Accept-Ranges": "bytes"}
        raise problem(416, "range_not_satisfiable", "The range lies outside the file.", headers=told) from None
    if span.partial:
        headers["Content-Range"] = span.content_range
    headers["Content-Length"] = str(span.stop - span.start)
    status = 206 if span.partial else 200
    if is_head(request) or span.start == span.stop:
        return Response(status_code=status, headers=headers)
    pieces = store.read(sha256, span.start, span.stop)
    try:
        first = await asyncio.to_thread(next, pieces)
    except OSError as error:
        raise unavailable("blob_unavailable", "The bytes of this file cannot be read at the moment.", retry_after=30) from error
    return StreamingResponse(ahead(first, pieces), status_code=status, headers=headers)


async def ahead(first: bytes, pieces: Generator[bytes]) -> AsyncIterator[bytes]:
    """The pieces of a blocking generator, the next one read in a thread while the last one is sent."""
    loop, piece = asyncio.get_running_loop(), first
    try:
        while piece:
            following = loop.run_in_executor(None, next, pieces, b"")
            try:
                yield piece
            finally:
                await asyncio.wait([following])  # a generator that runs in a thread cannot be closed
            piece = following.result()
    finally:
        pieces.close()


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    return any(tag.strip(" \t").removeprefix("W/") in (etag, "*") for tag in header.split(","))


def _attachment(filename: str) -> str:
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in filename)
    extended = "" if plain == filename else f"; filename*=UTF-8''{quote(filename, safe='')}"
    return f'attachment; filename="{plain}"{extended}'


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()
