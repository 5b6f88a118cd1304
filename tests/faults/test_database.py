"""A database that fills up, cannot be flushed, or falls silent: what is said, that nothing hangs, and that it heals."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from server.db import broken
from tests.support.live import JOB, live, upload_toy
from tests.support.plain import NO_TLS
from tests.support.postgres import start
from tests.support.stack import ROOT, free_port, until

MADE = {"name": "made", "scopes": ["read"]}


@contextlib.contextmanager
def server(
    home: Path, wrapper: Sequence[str] = (), prepare: Sequence[str] = ()
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A server process of its own, and an administrator's client."""
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STOKER_")}
    environment |= {"PYTHONPATH": str(ROOT), "STOKER_STATE_DIR": str(home), "STOKER_PORT": str(port), "STOKER_TIME_SCALE": "0.1"}
    key = home.parent / f"{home.name}.key"
    made = f"{sys.executable} -m server create-key --name t --scopes read,submit,admin > {key}"
    with (home.parent / f"{home.name}.log").open("ab") as log:
        process = subprocess.Popen(
            [*wrapper, "sh", "-c", " && ".join([*prepare, made, f"exec {sys.executable} -m server"])],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until(lambda: process.poll() is not None or ready(port), timeout=60, what="server ready")
        assert process.poll() is None, (home.parent / f"{home.name}.log").read_text()
        headers = {"Authorization": f"Bearer {key.read_text().split()[-1]}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30, verify=NO_TLS) as http:
            yield process, http
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)


def ready(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2, verify=NO_TLS).status_code == 200
    return False


def namespaces() -> bool:
    return shutil.which("unshare") is not None and subprocess.run(["unshare", "-rm", "true"], check=False).returncode == 0


@pytest.mark.skipif(not namespaces(), reason="no user namespaces on this machine")
def test_a_full_disk_is_said_and_heals(tmp_path: Path) -> None:
    home = tmp_path / "state"
    home.mkdir()
    small = [f"mount -t tmpfs -o size=3m tmpfs {home}", f"head -c 1500000 /dev/zero > {home}/filler"]
    with server(home, ["unshare", "-rm"], small) as (process, http):
        stored = [http.post("/v1/keys", json=MADE).json()["id"]]
        while (answer := http.post("/v1/keys", json=MADE | {"name": "x" * 100})).status_code == 201:
            stored.append(answer.json()["id"])
            assert len(stored) < 10_000
        assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
        assert int(answer.headers["retry-after"]) > 0
        assert http.get("/v1/keys", params={"limit": 1}).status_code == 200, "reads go on"
        Path(f"/proc/{process.pid}/root{home}/filler").unlink()
        until(lambda: http.post("/v1/keys", json=MADE).status_code == 201, timeout=20, what="writes again")
        seen, after = set[str](), ""
        while True:
            page = http.get("/v1/keys", params={"limit": 500} | ({"after": after} if after else {})).json()
            seen |= {k["id"] for k in page["data"]}
            if not page["has_more"]:
                break
            after = page["next"]
        assert seen >= set(stored), "what was answered 201 is there"


def may_trace() -> bool:
    return (
        shutil.which("strace") is not None and subprocess.run(["strace", "-o", "/dev/null", "true"], check=False).returncode == 0
    )


@pytest.mark.skipif(not may_trace(), reason="no strace on this machine")
def test_a_flush_that_fails_ends_the_process(tmp_path: Path) -> None:
    home = tmp_path / "state"
    home.mkdir()
    with server(home) as (process, http):
        assert http.post("/v1/keys", json=MADE).status_code == 201
        command = ["strace", "-f", "-q", "-o", "/dev/null", "-p", str(process.pid), "-e", "trace=fsync,fdatasync"]
        tracer = subprocess.Popen([*command, "-e", "inject=fsync,fdatasync:error=EIO"], stderr=subprocess.DEVNULL)
        try:
            until(lambda: traced(process.pid), timeout=20, what="tracing")
            answer = http.post("/v1/keys", json=MADE | {"name": "unknown"})
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
            assert process.wait(timeout=20) == broken.EXIT_CODE
        finally:
            tracer.kill()
            tracer.wait()
    with server(home) as (_, http):
        assert "made" in {k["name"] for k in http.get("/v1/keys").json()["data"]}, "what was answered 201 is there"
        assert http.post("/v1/keys", json=MADE).status_code == 201


def traced(pid: int) -> bool:
    """Whether every thread has its tracer."""
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    return all("TracerPid:\t0" not in (t / "status").read_text() for t in threads)


@pytest.mark.parametrize(
    ("code", "fatal"),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, True),
        (sqlite3.SQLITE_IOERR_WRITE, True),
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_BUSY, False),
    ],
)
def test_only_a_failed_write_is_fatal(code: int, fatal: bool) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    assert broken.is_fatal(error) is fatal


def test_a_silent_database_holds_no_request(tmp_path: Path) -> None:
    """PostgreSQL is stopped in mid-air, as by a hung disk: answers in bounded time, health goes on, and it heals by itself."""
    postgres = start()
    try:
        with live(tmp_path, postgres.create_database(), database_patience=1.0) as served, served.client("submit") as http:
            upload_toy(http)
            assert http.post("/v1/jobs", json=JOB).status_code == 202
            freeze(postgres.process.pid, signal.SIGSTOP)
            began = time.monotonic()
            for _ in range(6):
                for answer in (http.get("/v1/workers"), http.post("/v1/jobs", json=JOB)):
                    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
                    assert int(answer.headers["retry-after"]) > 0
            assert time.monotonic() - began < 30, "each within its patience and that of its key"
            assert http.get("/healthz").status_code == 200
            assert http.get("/readyz").status_code == 503
            freeze(postgres.process.pid, signal.SIGCONT)
            until(lambda: http.post("/v1/jobs", json=JOB).status_code == 202, timeout=30, what="healed")
    finally:
        freeze(postgres.process.pid, signal.SIGCONT)
        postgres.stop()


def freeze(parent: int, sig: signal.Signals) -> None:
    """The server and each of its sessions."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for pid in (parent, *map(int, children)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sig)
