"""The two transports: one call, sent until it is answered or given up. The only code that waits."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import httpx

from stoker.client._config import Config, load_config
from stoker.client._retry import Retries
from stoker.client._stream import READ_TIMEOUT
from stoker.client._wire import Answer, Call, error_of
from stoker.errors import ServerUnreachable

T = TypeVar("T")
P = ParamSpec("P")
AGENT = "stoker-client/1"
LIMITS = httpx.Limits(max_connections=32, max_keepalive_connections=8)


class Settings:
    """What both transports are made of."""

    def __init__(self, config: Config, timeout: float, retries: Retries) -> None:
        self.url = config.require_url()
        self.timeout, self.retries, self.project = timeout, retries, config.project.value
        pairs = {"User-Agent": AGENT, "Accept": "application/json, application/problem+json"}
        if config.key.value:
            pairs["Authorization"] = f"Bearer {config.key.value}"
        if config.project.value:
            pairs["Stoker-Project"] = config.project.value
        self.headers = pairs
        # True reads every root certificate (20 ms of each command); plain HTTP never looks at them.
        self.tls = True if self.url.lower().startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    @classmethod
    def load(cls, url: str | None, key: str | None, project: str | None, timeout: float, retries: int) -> "Settings":
        return cls(load_config(url, key, project), timeout, Retries(count=retries))

    def request(self, http: httpx.Client | httpx.AsyncClient, call: Call[T]) -> httpx.Request:
        return http.build_request(
            call.method,
            call.path,
            params=httpx.QueryParams(list(call.params)) if call.params else None,
            headers=dict(call.headers),
            content=call.body,
            timeout=call.timeout or self.timeout,
        )

    def gone(self, error: Exception) -> ServerUnreachable:
        words = str(error) or type(error).__name__
        return ServerUnreachable(f"no answer from {self.url}: {words}")


class Transport:
    """Sends calls and blocks until they are answered."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.http = httpx.Client(
            base_url=settings.url, headers=settings.headers, limits=LIMITS, verify=settings.tls, trust_env=False
        )

    def send(self, call: Call[T]) -> T:
        """The parsed answer.

        Raises ApiError for what the server refuses, ServerUnreachable when it does not answer.
        """
        tries = 0
        while True:
            tries += 1
            try:
                answer = _whole(self.http.send(self.settings.request(self.http, call)))
            except httpx.TransportError as error:
                pause = self.settings.retries.after_silence(call, tries)
                if pause is None:
                    raise self.settings.gone(error) from error
            else:
                pause = self.settings.retries.after_answer(call, answer, tries)
                if pause is None:
                    return read(call, answer)
            time.sleep(pause)

    @contextmanager
    def stream(self, call: Call[Any], read_timeout: float = READ_TIMEOUT) -> Iterator[httpx.Response]:
        """An open answer whose body is read as it comes. Raises ApiError; transport errors pass as httpx raises them."""
        request = self.settings.request(self.http, call)
        request.extensions["timeout"] = httpx.Timeout(self.settings.timeout, read=read_timeout).as_dict()
        response = self.http.send(request, stream=True)
        try:
            if response.status_code >= 400:
                response.read()
                raise error_of(_whole(response))
            yield response
        finally:
            response.close()

    def transfer(self, how: Callable[Concatenate["Transport", P], T], *arguments: P.args, **options: P.kwargs) -> T:
        """Run an upload or a download."""
        return how(self, *arguments, **options)


class AsyncTransport:
    """Sends calls within an event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.http = httpx.AsyncClient(
            base_url=settings.url, headers=settings.headers, limits=LIMITS, verify=settings.tls, trust_env=False
        )

    async def send(self, call: Call[T]) -> T:
        """See `Transport.send`."""
        tries = 0
        while True:
            tries += 1
            try:
                answer = _whole(await self.http.send(self.settings.request(self.http, call)))
            except httpx.TransportError as error:
                pause = self.settings.retries.after_silence(call, tries)
                if pause is None:
                    raise self.settings.gone(error) from error
            else:
                pause = self.settings.retries.after_answer(call, answer, tries)
                if pause is None:
                    return read(call, answer)
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def stream(self, call: Call[Any]) -> AsyncIterator[httpx.Response]:
        """See `Transport.stream`."""
        request = self.settings.request(self.http, call)
        request.extensions["timeout"] = httpx.Timeout(self.settings.timeout, read=READ_TIMEOUT).as_dict()
        response = await self.http.send(request, stream=True)
        try:
            if response.status_code >= 400:
                await response.aread()
                raise error_of(_whole(response))
            yield response
        finally:
            await response.aclose()

    async def transfer(self, how: Callable[Concatenate[Transport, P], T], *arguments: P.args, **options: P.kwargs) -> T:
        """Run an upload or a download, which read, hash and write files in threads, outside the event loop."""
        transport = Transport(self.settings)
        try:
            return await asyncio.to_thread(how, transport, *arguments, **options)
        finally:
            transport.http.close()


def read(call: Call[T], answer: Answer) -> T:
    """What the answer says. Raises ApiError. A HEAD's 404 is an answer: it has no body that could explain it."""
    if answer.status >= 400 and not (call.method == "HEAD" and answer.status == 404):
        raise error_of(answer)
    return call.parse(answer)


def _whole(response: httpx.Response) -> Answer:
    return Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, response.content)
