"""How long do 1,000,000 points as 1,000 buckets take, beside reading the same rows and reducing them with numpy alone?"""

import json
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from sqlalchemy import insert  # noqa: E402

from server.db import utcnow  # noqa: E402
from server.metrics.tables import MetricChunk  # noqa: E402
from tests.integration.server_data.conftest import serving  # noqa: E402

POINTS, REPEATS = 1_000_000, 15


def fill(server, job_id: str, epoch: int, rows: int) -> None:
    """The points in chunks of so many."""
    values, now = [], utcnow()
    noise = np.random.default_rng(0).normal(size=POINTS)
    for seq, at in enumerate(range(0, POINTS, rows), start=2):
        steps = np.arange(at, at + rows)
        packed = steps.astype("<i8").tobytes() + noise[at : at + rows].astype("<f8").tobytes()
        first = {"job_id": job_id, "epoch": epoch, "seq": seq, "first_step": at, "last_step": at + rows - 1, "rows": rows}
        values.append(first | {"keys": ["train/loss"], "packed": packed, "created_at": now})
    server.db.write_now(lambda session: session.execute(insert(MetricChunk), values))


def floor(path: str, job_id: str) -> float:
    began = time.perf_counter()
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT packed FROM metric_chunks WHERE job_id = ? ORDER BY epoch, seq", (job_id,)).fetchall()
    tables = [np.frombuffer(packed, "<f8").reshape(2, -1) for (packed,) in rows]
    values = np.concatenate([t[1] for t in tables])
    starts = np.arange(0, POINTS, POINTS // 1000)
    for reduce in (np.add, np.minimum, np.maximum):
        reduce.reduceat(values, starts)
    return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory() as home, serving(Path(home), f"sqlite:///{home}/s.db", "sqlite") as server:
        for rows in (1000, 100):
            print(json.dumps(measure(server, f"{home}/s.db", rows)))


def measure(server, path: str, rows: int) -> dict[str, float]:
    job_id = server.start_job(progress={"step": 0, "total_steps": POINTS - 1})
    fill(server, job_id, server.start_attempt(job_id, started=False).epoch, rows)
    ours, least = [], []
    with server.client() as user:
        for _ in range(REPEATS):
            least.append(floor(path, job_id))
            began = time.perf_counter()
            answer = user.get(f"/v1/jobs/{job_id}/metrics", params={"max_points": 1000})
            ours.append(time.perf_counter() - began)
    series = answer.json()["keys"]["train/loss"]
    assert (sum(series["count"]), len(series["steps"])) == (POINTS, 1000)
    line = {"points": POINTS, "rows_per_chunk": rows, "ms": round(1e3 * statistics.median(ours), 1)}
    return line | {"best_ms": round(1e3 * min(ours), 1), "floor_ms": round(1e3 * statistics.median(least), 1)}


if __name__ == "__main__":
    main()
