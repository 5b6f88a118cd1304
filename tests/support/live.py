"""A real server on a real socket, in a thread of the test process, and a client for each kind of key."""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from server.db import Database
from server.db.migrate import migrate
from server.serve import options, whole
from server.settings import Settings
from server.tokens.service import create, expiry
from stoker.frames import MEDIA_TYPE, Frame, pack_metrics
from tests.support.plain import NO_TLS

CSV = b"a,b,label\n" + b"".join(b"%d,%d,%d\n" % (i, i * i % 7, i % 2) for i in range(200))
JOB: dict[str, Any] = {
    "task": {"type": "classification", "target": "label"},
    "model": {"type": "mlp", "hidden_sizes": [4]},
    "data": {"source": {"type": "csv", "dataset": "toy"}},
    "training": {"max_steps": 10, "batch_size": 8},
}


@dataclass
class Live:
    """A running server."""

    settings: Settings
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def key(self, *scopes: str, project: str | None = None) -> str:
        db = Database(self.settings.database, readers=1)
        try:
            made = db.write_now(
                lambda s: create(
                    s, self.settings.pepper, name="test", scopes=list(scopes), project=project, expires_at=expiry(1, 1)
                )
            )
        finally:
            db.close()
        assert made.key is not None
        return made.key

    def client(self, *scopes: str, project: str | None = None, token: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token or self.key(*scopes, project=project)}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, verify=NO_TLS)


@contextlib.contextmanager
def live(home: Path, database_url: str = "", *, scale: float = 0.1, **settings: Any) -> Iterator[Live]:
    """Serve until the block ends. All timers are scaled."""
    before = os.environ.get("STOKER_TIME_SCALE")
    os.environ["STOKER_TIME_SCALE"] = str(scale)
    made = Settings(state_dir=home / "state", database_url=database_url, port=0, access_log=False, **settings)
    made.check()
    migrate(made.database)
    server = uvicorn.Server(uvicorn.Config(whole(made), **options(made)))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in time"
            thread.join(0.01)
        yield Live(made, server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(20)
        if before is None:
            del os.environ["STOKER_TIME_SCALE"]
        else:
            os.environ["STOKER_TIME_SCALE"] = before


def upload_toy(http: httpx.Client, name: str = "toy") -> None:
    digest = hashlib.sha256(CSV).hexdigest()
    stored = http.put(f"/v1/blobs/{digest}", content=CSV, headers={"Content-Type": "application/octet-stream"})
    assert stored.status_code < 300, stored.text
    made = http.post("/v1/datasets", json={"name": name, "files": [{"path": "toy.csv", "bytes": len(CSV), "sha256": digest}]})
    assert made.status_code < 300, made.text


@dataclass
class Agent:
    """An agent that does what a test says."""

    url: str
    id: str
    epoch: int
    claimed: dict[str, Any]
    seq: int = 0

    def post(self, verb: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.claimed['token']}", **more.pop("headers", {})}
        return httpx.post(f"{self.url}/v1/attempts/{self.id}/{verb}", headers=headers, timeout=30, verify=NO_TLS, **more)

    def report(self, *frames: tuple[str, dict[str, Any]], epoch: int | None = None) -> httpx.Response:
        numbered = [Frame(self.seq + i + 1, kind, header) for i, (kind, header) in enumerate(frames)]
        headers = {"Stoker-Epoch": str(self.epoch if epoch is None else epoch), "Content-Type": MEDIA_TYPE}
        answer = self.post("report", content=b"".join(f.encode() for f in numbered), headers=headers)
        if answer.status_code == 200:
            self.seq = answer.json()["acked_through"]
        return answer

    def started(self, step: int = 0) -> httpx.Response:
        head = {"step": step, "total_steps": 10, "parameters": 9, "world_size": 1, "device": "cpu"}
        return self.report(("started", head))

    def measure(self, loss: dict[int, float]) -> httpx.Response:
        """The training loss at some steps, as one frame of metrics."""
        steps, values = list(loss), list(loss.values())
        head = {"keys": ["train/loss"], "rows": len(steps), "first_step": min(steps), "last_step": max(steps)}
        head["last"] = {"train/loss": values[-1]}
        frame = Frame(self.seq + 1, "metrics", head, pack_metrics(steps, {"train/loss": values}))
        headers = {"Stoker-Epoch": str(self.epoch), "Content-Type": MEDIA_TYPE}
        answer = self.post("report", content=frame.encode(), headers=headers)
        assert answer.status_code == 200, answer.text
        self.seq = answer.json()["acked_through"]
        return answer

    def finish(self, reason: str = "completed", **more: Any) -> httpx.Response:
        body = {"epoch": self.epoch, "reason": reason, "last_seq": self.seq, **more}
        return self.post("finish", json=body)


def beat(
    worker: httpx.Client,
    name: str = "node",
    *,
    cpus: int = 4,
    gpus: int = 0,
    tpus: int = 0,
    backends: tuple[str, ...] = (),
    boot: str = "boot-1",
    held: Any = (),
    address: str = "",
) -> dict[str, Any]:
    """One heartbeat; its answer."""
    devices = [{"index": i, "uuid": f"GPU-{name}-{i}", "name": "Fake GPU", "memory_bytes": 2**36} for i in range(gpus)]
    capacity = {"cpus": cpus, "memory_bytes": 2**40, "gpus": devices, "tpus": tpus, "backends": list(backends)}
    body = {"name": name, "boot_id": boot, "version": "test", "capacity": capacity, "held": list(held), "warm": True}
    body |= {"address": address}
    answer = worker.post("/v1/workers/heartbeat", json=body)
    assert answer.status_code == 200, answer.text
    reply: dict[str, Any] = answer.json()
    return reply


def assigned(worker: httpx.Client, name: str = "node", **more: Any) -> dict[str, Any]:
    """Heartbeats until an attempt is assigned to the worker."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if found := beat(worker, name, **more)["assigned"]:
            first: dict[str, Any] = found[0]
            return first
        time.sleep(0.02)
    raise AssertionError("nothing was assigned")


def claim(server: Live, worker: httpx.Client, name: str = "node", agent_id: str = "agent-00000001", **more: Any) -> Agent:
    given = assigned(worker, name, **more)
    body = {"worker": name, "epoch": given["epoch"], "agent_id": agent_id, "pid": 1}
    answer = worker.post(f"/v1/attempts/{given['attempt_id']}/claim", json=body)
    assert answer.status_code == 200, answer.text
    return Agent(server.url, given["attempt_id"], given["epoch"], answer.json())
