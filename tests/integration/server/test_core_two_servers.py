"""Two server processes on one PostgreSQL: one keeps house, either takes over, and nothing is given out twice."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

from server.db.migrate import migrate
from server.leader import _LOCK
from tests.support.live import JOB, assigned, beat, upload_toy
from tests.support.plain import NO_TLS
from tests.support.postgres import Postgres
from tests.support.stack import ROOT, free_port, until


@dataclass
class Pair:
    """Both processes by port, their database, and a key for everything."""

    processes: dict[int, subprocess.Popen[bytes]]
    dsn: str
    key: str

    def client(self, port: int) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30, verify=NO_TLS)

    def leader(self) -> int | None:
        """Port of the process whose connection holds the leader's lock."""
        with psycopg.connect(self.dsn) as connection:
            rows = connection.execute(
                "select a.client_port from pg_locks l join pg_stat_activity a on a.pid = l.pid"
                " where l.locktype = 'advisory' and l.objid = %s and l.granted and a.datname = current_database()",
                (_LOCK,),
            ).fetchall()
        assert len(rows) <= 1, "two leaders"
        return next((port for port, p in self.processes.items() if rows and p.poll() is None and owns(p.pid, rows[0][0])), None)


def owns(pid: int, local_port: int) -> bool:
    """Whether a process holds the socket of a local port."""
    inodes = {
        line.split()[9]
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{local_port:04X}")
    }
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(os.readlink(entry))
    return any(f"socket:[{inode}]" in links for inode in inodes)


@pytest.fixture
def pair(postgres: Postgres, tmp_path: Path) -> Iterator[Pair]:
    url = postgres.create_database()
    migrate(url)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STOKER_")}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "STOKER_STATE_DIR": str(tmp_path),
        "STOKER_DATABASE_URL": url,
        "STOKER_TIME_SCALE": "0.02",
    }
    made = [sys.executable, "-m", "server", "create-key", "--name", "t", "--scopes", "read,submit,admin,worker"]
    key = subprocess.run(made, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout.split()[
        -1
    ]
    processes = {}
    with (tmp_path / "log").open("ab") as log:
        for port in (free_port(), free_port()):
            command = [sys.executable, "-m", "server"]
            more = environment | {"STOKER_PORT": str(port)}
            processes[port] = subprocess.Popen(command, cwd=ROOT, env=more, stdout=log, stderr=log, start_new_session=True)
    try:
        for port in processes:
            until(lambda p=port: ready(p), timeout=60, what=f"server on {port} ready")  # type: ignore[misc]
        yield Pair(processes, postgres.dsn(url.rpartition("/")[2]), key)
    finally:
        for process in processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=20)


def ready(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2, verify=NO_TLS).status_code == 200
    return False


def test_the_leader_dies_and_the_other_places_and_reaps(pair: Pair) -> None:
    first = until(pair.leader, timeout=20, what="a leader")
    (other,) = set(pair.processes) - {first}
    with pair.client(first) as http:
        upload_toy(http)
    pair.processes[first].kill()
    pair.processes[first].wait(timeout=20)
    with pair.client(other) as http:
        beat(http)
        job = http.post("/v1/jobs", json=JOB).json()["id"]
        assert assigned(http)["epoch"] >= 1, "placed without the first leader"
        until(lambda: pair.leader() == other, timeout=60, what="the other leads")

        def reaped() -> bool:
            beat(http)
            return any(a["reason"] == "node_lost" for a in http.get(f"/v1/jobs/{job}/attempts").json()["data"])

        until(reaped, timeout=60, what="a lease that nobody renewed has ended under the new leader")


def test_the_last_slot_is_given_once(pair: Pair) -> None:
    """Eight clients submit through both servers at once while a worker has room for one."""
    ports = list(pair.processes)
    with pair.client(ports[0]) as http:
        upload_toy(http)
        beat(http, cpus=1)
    barrier = threading.Barrier(8)

    def race(number: int) -> str:
        with pair.client(ports[number % 2]) as http:
            barrier.wait(timeout=30)
            beat(http, cpus=1)
            answer = http.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": f"race-{number // 2}"})
            while answer.status_code == 409 and answer.json()["code"] == "idempotency_in_progress":
                answer = http.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": f"race-{number // 2}"})
            assert answer.status_code == 202, answer.text
            beat(http, cpus=1)
            return str(answer.json()["id"])

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(race, range(8)))
    assert len(set(made)) == 4, "one job for each key, whichever server was asked"
    with pair.client(ports[1]) as http:
        assigned(http, cpus=1)
        with psycopg.connect(pair.dsn) as connection:
            overlaps = connection.execute(
                "select count(*) from attempts a join attempts b on a.id < b.id and a.worker_id = b.worker_id"
                " and a.placed_at < coalesce(b.ended_at, 9223372036854775807) and b.placed_at < coalesce(a.ended_at, 9223372036854775807)"
            ).fetchone()
        assert overlaps == (0,), "the slot was held twice at one time"
