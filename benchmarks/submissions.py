"""How many durable submissions per second, beside a bare FastAPI that validates a body and commits one row in groups?

Three times, each submission under a different Idempotency-Key: one document again and again, documents that differ in name and
seed, and a study that also varies the learning rate and the width of the model.
Beside the wall clock stands the processor time of the server process, which other work on the machine does not move.
"""

import asyncio
import contextlib
import json
import queue
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402
import psutil  # noqa: E402
import uvicorn  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from pydantic import BaseModel  # noqa: E402
from sqlalchemy import Column, MetaData, String, Table, create_engine, event, insert  # noqa: E402

from benchmarks.load import Result, fire, request  # noqa: E402
from tests.support.data import digits_csv, digits_job, upload  # noqa: E402
from tests.support.stack import Stack, free_port, until  # noqa: E402

COUNT, CLIENTS, ROUNDS = 800, (1, 16), 3
JSON = {"Content-Type": "application/json"}


class Body(BaseModel):
    model_config = {"extra": "allow"}
    name: str


def floor_app(home: str) -> FastAPI:
    """The least a durable submission can be: parse, validate, one Core insert, commit with whoever waits, synchronous=FULL."""
    rows = Table("floor", MetaData(), Column("id", String, primary_key=True), Column("body", String))
    engine = create_engine(f"sqlite:///{home}/floor.db", connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: sqlite3.Connection, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    rows.metadata.create_all(engine)
    inbox: queue.SimpleQueue[tuple[dict[str, str], asyncio.Future[None], asyncio.AbstractEventLoop]] = queue.SimpleQueue()

    statement = insert(rows)

    def write_forever() -> None:
        while True:
            group = [inbox.get()]
            while len(group) < 64 and not inbox.empty():
                group.append(inbox.get())
            with engine.begin() as connection:
                for row, _, _ in group:
                    connection.execute(statement, row)
            for _, done, loop in group:
                loop.call_soon_threadsafe(done.set_result, None)

    threading.Thread(target=write_forever, daemon=True).start()
    app = FastAPI()

    @app.post("/v1/jobs", status_code=202)
    async def create(body: Body) -> dict[str, str]:
        row = {"id": f"job_{time.time_ns():x}", "body": body.model_dump_json()}
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        inbox.put((row, done, loop))
        await done
        return {"id": row["id"]}

    @app.get("/readyz")
    async def ready() -> None: ...

    return app


@contextlib.contextmanager
def floor(home: Path) -> Iterator[tuple[int, int]]:
    """The floor's server in a process of its own, as Stoker's is. Gives its port and its process."""
    port = free_port()
    process = subprocess.Popen([sys.executable, __file__, "floor", str(home), str(port)])
    try:
        until(lambda: _answers(port), timeout=30, what="floor ready")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=1).status_code == 200
    return False


def measured(port: int, pid: int, requests: list[bytes], clients: int) -> tuple[Result, float]:
    """The burst, and the milliseconds of processor time that the server spent on each of its requests."""
    process = psutil.Process(pid)
    before = process.cpu_times()
    result = fire(port, requests, clients)
    after = process.cpu_times()
    spent = after.user + after.system - before.user - before.system
    return result, 1e3 * spent / len(requests)


def fresh(tag: str, i: int) -> int:
    """A number that no other round sends: the server remembers what it has seen."""
    return zlib.crc32(tag.encode()) % 1000 * 1000 + i


def same(tag: str, i: int) -> dict[str, Any]:
    """One document again and again."""
    return digits_job()


def other(tag: str, i: int) -> dict[str, Any]:
    """Documents that all differ, in name and seed."""
    return digits_job(name=f"sweep-{tag}-{i}", reproducibility={"seed": fresh(tag, i)})


def study(tag: str, i: int) -> dict[str, Any]:
    """Documents that all differ in name, seed and learning rate, with 50 widths of the model."""
    number = fresh(tag, i)
    changed = {"reproducibility": {"seed": number}, "optimizer": {"type": "adamw", "lr": 1e-9 * (1 + number)}}
    return digits_job(
        name=f"study-{tag}-{i}", model={"type": "mlp", "hidden_sizes": [32 + i % 50, 32], "dropout": 0.1}, **changed
    )


def ours(key: str, tag: str, document: Callable[[str, int], dict[str, Any]]) -> list[bytes]:
    """Submissions, each under a different Idempotency-Key."""
    made = []
    for i in range(COUNT):
        body = json.dumps(document(tag, i)).encode()
        headers = {**JSON, "Authorization": f"Bearer {key}", "Idempotency-Key": f"{document.__name__}-{tag}-{i}"}
        made.append(request("POST", "/v1/jobs", headers, body))
    return made


def said(name: str, clients: int, results: list[tuple[Result, float]], floor_at: float | None) -> float:
    """Print the best of the rounds: the others had more of the machine taken away by other work."""
    best = max((r for r, _ in results), key=lambda r: r.per_second)
    ratio = f", {best.per_second / floor_at:.2f} of the floor" if floor_at else ""
    print(
        f"{clients:2d} clients, {name}: {best.per_second:6.0f}/s, p50 {best.p50_ms:.1f} ms, p99 {best.p99_ms:.1f} ms, "
        f"{min(s for _, s in results):.2f} ms of processor time each, {best.statuses}{ratio}",
        flush=True,
    )
    return best.per_second


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        stack = Stack(home, f"sqlite:///{home}/stoker.db")
        try:
            stack.start_broker()
            stack.start_server()
            upload(stack, "digits", {"digits.csv": digits_csv()})
            key = stack.key("read,submit,admin")
            with floor(home) as (floor_port, floor_pid):
                plain = [request("POST", "/v1/jobs", JSON, json.dumps(digits_job()).encode())] * COUNT
                for clients in CLIENTS:
                    least, kinds = [], {document: [] for document in (same, other, study)}
                    for i in range(ROUNDS):
                        least.append(measured(floor_port, floor_pid, plain, clients))
                        for document, results in kinds.items():
                            bodies = ours(key, f"{clients}-{i}", document)
                            results.append(measured(stack.port, stack.pid("server"), bodies, clients))
                    floor_at = said("floor", clients, least, None)
                    for document, results in kinds.items():
                        said((document.__doc__ or "").rstrip("."), clients, results, floor_at)
        finally:
            stack.stop()


if __name__ == "__main__":
    if sys.argv[1:2] == ["floor"]:
        uvicorn.run(floor_app(sys.argv[2]), port=int(sys.argv[3]), log_level="error", loop="uvloop", http="httptools")
    else:
        main()
