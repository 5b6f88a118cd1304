"""How many durable submissions per second, beside a bare FastAPI that validates a body and commits one row in groups?"""

import contextlib
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import uvicorn  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from pydantic import BaseModel  # noqa: E402
from sqlmodel import Field, SQLModel  # noqa: E402

from benchmarks.load import fire, request  # noqa: E402
from server.db import Database, Row, new_id  # noqa: E402
from tests.support.data import digits_csv, digits_job, upload  # noqa: E402
from tests.support.stack import Stack, free_port  # noqa: E402

COUNT, CLIENTS = 1500, (1, 16)


class Floor(Row, table=True):
    __tablename__ = "floor"
    id: str = Field(primary_key=True)
    body: str


class Body(BaseModel):
    model_config = {"extra": "allow"}
    name: str


@contextlib.contextmanager
def floor(home: Path):
    """A server that does the least a durable submission can: parse, validate, insert, commit with whoever waits."""
    db = Database(f"sqlite:///{home}/floor.db")
    SQLModel.metadata.tables["floor"].create(db.engine)
    app = FastAPI()

    @app.post("/v1/jobs", status_code=202)
    async def create(body: Body) -> dict[str, str]:
        row = Floor(id=new_id("job"), body=body.model_dump_json())
        await db.write(lambda session: session.add(row))
        return {"id": row.id}

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", loop="uvloop", http="httptools"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield port
    server.should_exit = True
    thread.join()
    db.close()


def main() -> None:
    body = json.dumps(digits_job()).encode()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        stack = Stack(home, f"sqlite:///{home}/stoker.db")
        stack.home.mkdir(exist_ok=True)
        try:
            stack.start_broker()
            stack.start_server()
            upload(stack, "digits", {"digits.csv": digits_csv()})
            key = stack.key("read,submit,admin")
            with floor(home) as floor_port:
                for clients in CLIENTS:
                    plain = [request("POST", "/v1/jobs", {"Content-Type": "application/json"}, body)] * COUNT
                    ours = [
                        request(
                            "POST",
                            "/v1/jobs",
                            {
                                "Content-Type": "application/json",
                                "Authorization": f"Bearer {key}",
                                "Idempotency-Key": f"{clients}-{i}",
                            },
                            body,
                        )
                        for i in range(COUNT)
                    ]
                    for round_ in range(2):
                        least = fire(floor_port, plain, clients)
                        mine = fire(
                            stack.port, [r.replace(b"Idempotency-Key: ", b"Idempotency-Key: %d-" % round_) for r in ours], clients
                        )
                    print(
                        f"{clients:2d} clients: stoker {mine.per_second:6.0f}/s (p50 {mine.p50_ms:.1f} ms, p99 {mine.p99_ms:.1f} ms, {mine.statuses}), "
                        f"floor {least.per_second:6.0f}/s, ratio {mine.per_second / least.per_second:.2f}"
                    )
        finally:
            stack.stop()


if __name__ == "__main__":
    main()
