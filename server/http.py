"""Uvicorn's HTTP/1.1 protocol with what it lacks: a deadline for headers, a bound on their size, and problems in JSON."""

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.errors import MEDIA_TYPE
from stoker.errors import problem

MAX_HEAD_BYTES = 64 * 1024
"""Bytes of request line and headers that are buffered at most; the guard refuses less than that properly."""


class Protocol(HttpToolsProtocol):
    """One connection."""

    deadline = 10.0
    """Seconds from the connection, or from a request's first byte, to its last header."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, "headers_too_large", "The headers are too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._arm()

    def on_headers_complete(self) -> None:
        self._disarm()
        self._in_head = False
        try:
            super().on_headers_complete()
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError, ValueError):
            self._refuse(400, "bad_request", "The request target cannot be read.")

    def on_response_complete(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "bad_request", "This is not an HTTP/1.1 request that can be read.")

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.deadline, self._too_late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._timer = None
        self.transport.close()

    def _refuse(self, status: int, code: str, detail: str) -> None:
        self._disarm()
        if self.transport is None or self.transport.is_closing():
            return
        body = problem(status, code, detail).model_dump_json(exclude_none=True).encode()
        head = b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (MEDIA_TYPE.encode(), len(body))
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
