"""The supervisor: brings the stack up in order, keeps it up, and takes it down in the reverse order when told to.

Trainings are watched by agents in their own sessions: no restart of a child touches them. When the stack is taken down they are
asked to save, and the next start continues them.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from stoker.cli.failure import Failure
from stoker.cli.stack import agents, keys, programs
from stoker.cli.stack.child import Child, Program, tail
from stoker.cli.stack.files import Process, Record, StackFiles, read_record, write_record
from stoker.cli.stack.process import end, free_port
from stoker.cli.words import counted

PORT = 7071
"""Preferred port of the server."""
START_LIMIT = 120.0
"""Seconds until a stack that is not ready is given up; the first start after an installation compiles every module."""
START_TRIES = 4
"""Starts of one child before the stack is ready."""


@dataclass(frozen=True)
class Options:
    host: str = "127.0.0.1"
    port: int | None = None
    """Required port; unset, the last one, else 7071, else any free one."""
    worker: str = "local"


class Supervisor:
    """`run` returns when the stack was told to stop. Raises Failure when it does not come up."""

    def __init__(self, files: StackFiles, options: Options, say: Callable[[str], None]) -> None:
        self.files, self.options, self.say = files, options, say
        self.children: list[Child] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.failed: asyncio.Future[str]
        self.claims: list[socket.socket] = []
        """Claims of the ports, held while the stack is up."""
        self.record = self._plan_record()

    def _plan_record(self) -> Record:
        last = read_record(self.files)
        for child in (last.children if last else {}).values():
            end(child, grace=10.0)  # left by a supervisor that was killed; its agents live in sessions of their own
        wanted = self.options.port or (last.port if last else PORT)
        port, claim = free_port(wanted, self.options.host)
        self.claims = [claim]
        if self.options.port and port != self.options.port:
            claim.close()
            raise Failure(f"port {self.options.port} is in use", "leave --port away and a free one is taken", code=2)
        embedded = not os.environ.get("STOKER_REDIS_URL")
        broker_port = None
        if embedded:
            broker_port, claim = free_port(last.broker_port if last else None)
            self.claims.append(claim)
        password = last.broker_password if last else None
        pid = os.getpid()
        return Record("starting", pid, self.options.host, port, broker_port, password, self.options.worker)

    async def run(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.failed = loop.create_future()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop.set)
        write_record(self.files, self.record)
        stopping = asyncio.ensure_future(stop.wait())
        starting = asyncio.ensure_future(self._start())
        try:
            waited: list[asyncio.Future[Any]] = [stopping, starting, self.failed]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if self.failed.done():
                raise Failure(self.failed.result())
            if starting.done():
                starting.result()
                await stopping
        finally:
            for task in (starting, stopping):
                task.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)
            await self._stop()

    async def _start(self) -> None:
        began = time.monotonic()
        if self.record.broker_port is not None:
            self._keep(programs.broker(self.files, self.record))
        env = programs.base_env(self.files, self.record)
        self._keep(programs.server(self.files, env))
        worker = self._keep_worker(env, keys.read_worker_key(self.files))
        key = await keys.ensure_user(self.files, env)
        await self._until(began, "server", key, "/readyz", _is_ok)
        if renew := not await self._is_known(key):  # another database than last time
            key = await keys.ensure_user(self.files, env, renew=True)
            if worker is not None:
                await worker.stop()
                worker = None
        keys.write_config(self.files, self.record.url, key)
        if worker is None:
            async with self._http(key) as http:
                self._keep_worker(env, await keys.ensure_worker(self.files, http, renew=renew))
        await self._until(began, "worker", key, "/v1/workers", self._has_worker)
        self.record.state = "ready"
        write_record(self.files, self.record)
        self._greet(time.monotonic() - began)

    def _http(self, key: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.record.url, headers=headers, timeout=5.0, trust_env=False)

    async def _is_known(self, key: str) -> bool:
        async with self._http(key) as http:
            return (await http.get("/v1/workers")).status_code != 401

    async def _until(self, began: float, name: str, key: str, path: str, enough: Callable[[httpx.Response], bool]) -> None:
        """Ask until the answer is enough. Raises Failure with the last words of the log when the time is over."""
        async with self._http(key) as http:
            while not await _asks(http, path, enough):
                if time.monotonic() > began + START_LIMIT:
                    raise Failure(f"the {name} is not ready after {START_LIMIT:.0f} s:\n{tail(self.files.log(name))}")
                await asyncio.sleep(0.05)

    def _has_worker(self, answer: httpx.Response) -> bool:
        workers = answer.json().get("data", []) if answer.status_code == 200 else []
        return any(w.get("name") == self.record.worker and w.get("state") != "lost" for w in workers)

    def _keep_worker(self, env: dict[str, str], key: str | None) -> Child | None:
        return None if key is None else self._keep(programs.worker(self.files, env, key, self.record.worker))

    def _keep(self, program: Program) -> Child:
        child = Child(program, self._changed)
        self.children.append(child)
        self.tasks.append(asyncio.ensure_future(child.keep()))
        return child

    def _changed(self, child: Child, message: str) -> None:
        name = child.program.name
        if child.process is not None:
            self.record.children[name] = Process(child.process.pid, child.process.born, child.restarts)
        write_record(self.files, self.record)
        if self.record.state == "starting" and child.restarts >= START_TRIES and not self.failed.done():
            self.failed.set_result(f"the {name} does not start:\n{tail(child.program.log)}")
        if self.record.state == "ready":
            self.say(message)

    def _greet(self, seconds: float) -> None:
        here = _short(self.files.root)
        self.say(f"Stoker is ready at {self.record.url} ({seconds:.1f} s)")
        self.say(f"  key     {here}/config.toml (read by every stoker command started here)")
        self.say(f"  logs    {here}/logs/")
        self.say("  next    stoker init && stoker submit job.yaml --watch")

    async def _stop(self) -> None:
        self.record.state = "stopping"
        write_record(self.files, self.record)
        for child in reversed(self.children):
            await child.stop()
            if child.program.name == "worker" and (saved := await agents.preempt(self.files)):
                self.say(f"saved {counted(saved, 'running job')}; the next start continues from there")
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for claim in self.claims:
            claim.close()
        self.record.state, self.record.children = "stopped", {}
        write_record(self.files, self.record)


def _is_ok(answer: httpx.Response) -> bool:
    return answer.status_code == 200


async def _asks(http: httpx.AsyncClient, path: str, enough: Callable[[httpx.Response], bool]) -> bool:
    try:
        return enough(await http.get(path))
    except (httpx.HTTPError, ValueError):
        return False


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
