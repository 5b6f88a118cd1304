"""A real server on loopback, on SQLite and on PostgreSQL, with keys of two projects and running attempts to report as."""

import hashlib
import json
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import select
from sqlmodel import col

from server.app import create_app, guarded
from server.attempts.tables import Attempt
from server.auth import attempt_token, digest
from server.db import Database, new_id, utcnow
from server.db.migrate import migrate
from server.deps import Runtime
from server.jobs.tables import Job
from server.serve import options
from server.settings import Settings
from server.tokens.service import create
from server.workers.tables import Worker
from stoker.frames import MEDIA_TYPE, Frame
from stoker.plan import Needs
from tests.support.plain import NO_TLS
from tests.support.postgres import postgres

__all__ = ["postgres"]


@dataclass
class Reporter:
    """An attempt that reports over HTTP as its agent would."""

    server: "Served"
    job_id: str
    attempt_id: str
    epoch: int
    token: str
    seq: int = 0

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Stoker-Epoch": str(self.epoch), "Content-Type": MEDIA_TYPE}

    def frame(self, kind: str, payload: bytes = b"", **header: Any) -> Frame:
        self.seq += 1
        return Frame(self.seq, kind, header, payload)

    def send(self, *frames: Frame) -> httpx.Response:
        body = b"".join(f.encode() for f in frames)
        return self.server.http.post(f"/v1/attempts/{self.attempt_id}/report", content=body, headers=self.headers)

    def report(self, kind: str, payload: bytes = b"", **header: Any) -> int:
        """Send one frame and return what is acked."""
        answer = self.send(self.frame(kind, payload, **header))
        assert answer.status_code == 200, answer.text
        return int(answer.json()["acked_through"])

    def upload(self, data: bytes) -> dict[str, Any]:
        """Store bytes; {"bytes", "sha256"}."""
        sha = hashlib.sha256(data).hexdigest()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/octet-stream"}
        stored = self.server.http.put(f"/v1/blobs/{sha}", content=data, headers=headers)
        assert stored.status_code in (200, 201), stored.text
        return {"bytes": len(data), "sha256": sha}

    def checkpoint(self, step: int, metrics: dict[str, Any] | None = None, *, final: bool = False) -> list[dict[str, Any]]:
        """Upload and report a checkpoint of two files whose bytes name the step."""
        files = [
            {"path": "manifest.json", **self.upload(json.dumps({"step": step, "job": self.job_id}).encode())},
            {"path": "model/weights.safetensors", **self.upload(f"weights of {self.job_id} at {step}".encode() * 50)},
        ]
        self.report("checkpoint", step=step, metrics=metrics or {}, final=final, files=files)
        return files


@dataclass
class Served:
    app: FastAPI
    url: str
    kind: str
    keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.url, timeout=60, verify=NO_TLS)

    @property
    def runtime(self) -> Runtime:
        runtime: Runtime = self.app.state.runtime
        return runtime

    @property
    def db(self) -> Database:
        return self.runtime.db

    def key(self, project: str | None = "default", scopes: Sequence[str] = ("read", "submit")) -> str:
        name = f"{project}:{','.join(scopes)}"
        if name not in self.keys:
            made = self.db.write_now(
                lambda s: create(s, self.runtime.settings.pepper, name="t", scopes=scopes, project=project, expires_at=None)
            )
            assert made.key is not None
            self.keys[name] = made.key
        return self.keys[name]

    def client(self, project: str | None = "default", scopes: Sequence[str] = ("read", "submit")) -> httpx.Client:
        return httpx.Client(
            base_url=self.url, timeout=60, headers={"Authorization": f"Bearer {self.key(project, scopes)}"}, verify=NO_TLS
        )

    def start_job(self, project: str = "default", **changes: Any) -> str:
        """A running job without an attempt; `checkpoint` is its policy."""
        now, job_id = utcnow(), new_id("job")
        spec = json.dumps({"checkpoint": changes.pop("checkpoint", {})})
        values = dict(
            id=job_id,
            project=project,
            state="running",
            submitted="{}",
            spec=spec,
            origins={},
            spec_digest="0" * 64,
            plan={},
            needs=Needs(device="cpu", ranks=1, cpus=1, memory_bytes=1),
            objective={"key": "validation/loss", "mode": "min"},
            created_at=now,
            queued_at=now,
        )
        self.db.write_now(lambda s: s.add(Job(**values | changes)))
        return job_id

    def start_attempt(self, job_id: str, resumed_from: int | None = None, *, started: bool = True) -> Reporter:
        """End the job's attempt and start the next one, as the scheduler and an agent would."""
        now, attempt_id = utcnow(), new_id("att")
        token = attempt_token(self.runtime.settings.pepper, attempt_id, "agent-00")

        def write(session: Any) -> int:
            job = session.get(Job, job_id)
            for older in session.scalars(select(Attempt).where(col(Attempt.job_id) == job_id, col(Attempt.state) != "ended")):
                older.state = "ended"
            worker = session.scalars(select(Worker).where(col(Worker.name) == "w")).one_or_none()
            if worker is None:
                worker = Worker(
                    id=new_id("wrk"),
                    name="w",
                    boot_id="b",
                    version="0",
                    capacity={"cpus": 64, "memory_bytes": 2**40, "gpus": []},
                    heartbeat_at=now + timedelta(days=1),
                    created_at=now,
                )
                session.add(worker)
                session.flush()
            job.epoch, job.attempts = job.epoch + 1, job.attempts + 1
            session.add(
                Attempt(
                    id=attempt_id,
                    job_id=job_id,
                    number=job.attempts,
                    epoch=job.epoch,
                    state="claimed",
                    worker_id=worker.id,
                    worker_name="w",
                    devices={"cpus": 0, "gpus": [], "memory_bytes": 0},
                    agent_id="agent-00",
                    token_hash=digest(self.runtime.settings.pepper, token),
                    lease_expires_at=now + timedelta(days=1),
                    placed_at=now,
                    claimed_at=now,
                )
            )
            return int(job.epoch)

        epoch = self.db.write_now(write)
        reporter = Reporter(self, job_id, attempt_id, epoch, token)
        if started:
            reporter.report("started", step=resumed_from or 0, total_steps=1000, parameters=1, world_size=1, device="cpu")
        return reporter

    def end_job(self, job_id: str, state: str = "succeeded") -> None:
        def write(session: Any) -> None:
            session.get(Job, job_id).state = state

        self.db.write_now(write)


@contextmanager
def serving(home: Path, database_url: str, kind: str) -> Iterator[Served]:
    """A server of this process on a free port."""
    home.chmod(0o700)
    settings = Settings(state_dir=home, database_url=database_url, redis_url="", host="127.0.0.1", port=0)
    migrate(settings.database)
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(guarded(app), **options(settings)))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        threading.Event().wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    served = Served(app, f"http://127.0.0.1:{port}", kind)
    yield served
    served.http.close()
    server.should_exit = True
    thread.join(20)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("state")
    sqlite = f"sqlite:///{home / 'stoker.db'}"
    url = sqlite if request.param == "sqlite" else request.getfixturevalue("postgres").create_database()
    with serving(home, url, request.param) as served:
        yield served


@pytest.fixture
def user(server: Served) -> Iterator[httpx.Client]:
    """A key of project `default` that may read and submit."""
    with server.client() as client:
        yield client


@pytest.fixture
def stranger(server: Served) -> Iterator[httpx.Client]:
    """The same of another project."""
    with server.client("elsewhere") as client:
        yield client


@pytest.fixture
def salt() -> bytes:
    """Makes bytes that no other test has stored."""
    return secrets.token_bytes(16)
