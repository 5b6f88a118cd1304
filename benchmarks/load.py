"""A load generator that costs little itself: HTTP/1.1 over raw keep-alive sockets in one process of its own."""

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """Of one burst of requests."""

    per_second: float
    p50_ms: float
    p99_ms: float
    statuses: tuple[int, ...]


def request(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """One request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{k}: {v}" for k, v in headers.items())]
    if body or method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def fire(port: int, requests: Sequence[bytes], clients: int) -> Result:
    """Send every request once over `clients` connections at a time, from another process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_fire, (port, list(requests), clients))


def _fire(port: int, requests: list[bytes], clients: int) -> Result:
    return asyncio.run(_burst(port, requests, clients))


async def _burst(port: int, requests: list[bytes], clients: int) -> Result:
    pending = iter(requests)
    took: list[float] = []
    statuses: set[int] = set()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for payload in pending:
            began = time.perf_counter()
            writer.write(payload)
            statuses.add(await _answer(reader))
            took.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    wall = time.perf_counter() - began
    quantiles = statistics.quantiles(took, n=100)
    return Result(len(took) / wall, 1e3 * statistics.median(took), 1e3 * quantiles[98], tuple(sorted(statuses)))


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            await reader.readexactly(int(value))
            return status
        if name.lower() == b"transfer-encoding":
            while size := int(await reader.readline(), 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
            return status
    return status
