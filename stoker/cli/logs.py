"""`stoker logs`."""

import queue
import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import Annotated

import typer

from stoker.cli.connection import Reference, connect, resolve
from stoker.cli.follow import Detached
from stoker.cli.outcome import label
from stoker.cli.terminal import say, wants_table
from stoker.client import Client
from stoker.views import JobView, LogChunkView

CAUGHT_UP = 0.7
"""Seconds of silence after which what is there has been read and --tail may show its lines."""


def logs(
    job: Reference = "@last",
    rank: Annotated[int | None, typer.Option("--rank", min=0, help="Only this training process.")] = None,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=1, max=100_000, help="Only this many lines from the end.")
    ] = None,
    grep: Annotated[str | None, typer.Option("--grep", help="Only lines with this text.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job ends.")] = False,
) -> None:
    """Print what a job wrote.

    stoker logs @last --follow
    stoker logs digits --rank 1 --grep error
    """
    with connect() as client:
        found = resolve(client, job)
        if not follow:
            text = client.logs(found.id, rank=rank, tail=tail, grep=grep)
            sys.stdout.write(text)
            if not text and wants_table():
                say(f"{label(found)} wrote nothing{' of the kind' if grep or rank is not None else ''}")
            return
        try:
            _follow(client, found, rank, tail, grep)
        except KeyboardInterrupt:
            raise Detached([found]) from None


def _follow(client: Client, job: JobView, rank: int | None, tail: int | None, grep: str | None) -> None:
    """Lines as they are completed. With `tail`, the backlog is held back until it has been read to its end."""
    lines, held = Lines(), deque[str](maxlen=tail)
    live = tail is None
    for chunk in _chunks(client, job.id, rank):
        if chunk is None:
            live = True
        found = [] if chunk is None else [line for line in lines.feed(chunk) if grep is None or grep in line]
        if live:
            _write([*held, *found])
            held.clear()
        else:
            held.extend(found)
    held.extend(line for line in lines.flush() if grep is None or grep in line)
    _write(held)


def _chunks(client: Client, job_id: str, rank: int | None) -> Iterator[LogChunkView | None]:
    """Chunks as they come; None after each silence."""
    found: queue.Queue[LogChunkView | Exception | None] = queue.Queue(maxsize=1000)

    def read() -> None:
        try:
            for chunk in client.follow_logs(job_id, rank=rank):
                found.put(chunk)
            found.put(None)
        except Exception as error:  # whatever it is, the main thread must hear of it rather than wait for ever
            found.put(error)

    threading.Thread(target=read, daemon=True, name="logs").start()
    while True:
        try:
            chunk = found.get(timeout=CAUGHT_UP)
        except queue.Empty:
            yield None
            continue
        if isinstance(chunk, Exception):
            raise chunk
        if chunk is None:
            return
        yield chunk


class Lines:
    """Whole lines out of chunks, each stream by itself; named by their rank once there are several."""

    def __init__(self) -> None:
        self._rests: dict[tuple[int, int, str], str] = {}

    def feed(self, chunk: LogChunkView) -> Iterator[str]:
        """The lines that this chunk completes."""
        key = (chunk.attempt, chunk.rank, chunk.stream)
        *whole, self._rests[key] = (self._rests.get(key, "") + chunk.text).split("\n")
        yield from (self._named(chunk.rank, line) for line in whole)

    def flush(self) -> Iterator[str]:
        """Lines that never ended."""
        yield from (self._named(rank, rest) for (_, rank, _), rest in self._rests.items() if rest)

    def _named(self, rank: int, line: str) -> str:
        return f"[{rank}] {line}" if len({r for _, r, _ in self._rests}) > 1 else line


def _write(lines: "deque[str] | list[str]") -> None:
    if lines:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
