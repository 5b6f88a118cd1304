"""How many metric points per second are durable, beside a bare FastAPI that commits each body as one row in groups?"""

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
from fastapi import FastAPI, Request  # noqa: E402
from sqlalchemy import LargeBinary  # noqa: E402
from sqlmodel import Field, SQLModel  # noqa: E402

from benchmarks.load import fire, request  # noqa: E402
from server.db import Database, Row, new_id  # noqa: E402
from stoker.frames import pack_metrics  # noqa: E402
from tests.integration.server_data.conftest import Reporter, serving  # noqa: E402
from tests.support.stack import free_port  # noqa: E402

ROWS, KEYS, REPORTS = 500, 10, 60
POINTS = ROWS * KEYS
"""Of one report: what an agent has to say after a second of 500 steps with ten metrics each."""


class Floor(Row, table=True):
    __tablename__ = "metric_floor"
    id: str = Field(primary_key=True)
    body: bytes = Field(sa_type=LargeBinary)


@contextlib.contextmanager
def floor(home: Path):
    db = Database(f"sqlite:///{home}/floor.db")
    SQLModel.metadata.tables["metric_floor"].create(db.engine)
    app = FastAPI()

    @app.post("/")
    async def create(body: Request) -> dict[str, int]:
        row = Floor(id=new_id("row"), body=await body.body())
        await db.write(lambda session: session.add(row))
        return {"acked_through": 1}

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


def reports(reporter: Reporter) -> list[bytes]:
    keys = [f"train/m{n}" for n in range(KEYS)]
    made = []
    for n in range(REPORTS):
        steps = list(range(n * ROWS, (n + 1) * ROWS))
        payload = pack_metrics(steps, {key: [step * 0.001 for step in steps] for key in keys})
        header = {"keys": keys, "rows": ROWS, "first_step": steps[0], "last_step": steps[-1], "last": dict.fromkeys(keys, 0.1)}
        body = reporter.frame("metrics", payload, **header).encode()
        made.append(request("POST", f"/v1/attempts/{reporter.attempt_id}/report", reporter.headers, body))
    return made


def main() -> None:
    with tempfile.TemporaryDirectory() as home, serving(Path(home), f"sqlite:///{home}/s.db", "sqlite") as server:
        found = {}
        for jobs in (1, 8):
            scripts = [reports(server.start_attempt(server.start_job())) for _ in range(jobs)]
            interleaved = [script[n] for n in range(REPORTS) for script in scripts]
            result = fire(int(server.url.rpartition(":")[2]), interleaved, jobs)
            assert result.statuses == (200,), result.statuses
            found[jobs] = result
        with floor(Path(home)) as port:
            body = interleaved[-1].partition(b"\r\n\r\n")[2]
            bare = {jobs: fire(port, [request("POST", "/", {}, body)] * REPORTS * jobs, jobs) for jobs in (1, 8)}
    for jobs, result in found.items():
        ours, least = result.per_second * POINTS, bare[jobs].per_second * POINTS
        line = {"jobs": jobs, "points_per_second": round(ours), "floor": round(least), "ratio": round(ours / least, 2)}
        print(json.dumps(line | {"p50_ms": round(result.p50_ms, 2), "p99_ms": round(result.p99_ms, 2)}))


if __name__ == "__main__":
    main()
