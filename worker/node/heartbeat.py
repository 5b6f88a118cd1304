"""Tells the server that this node lives and what runs on it, starts what was placed here, ends what is no longer ours.

It needs nothing of the broker: with Redis gone, the answers to its heartbeats are how work arrives.
"""

import logging
import os
import select
import threading
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
from pydantic import ValidationError

from stoker.protocol import Assignment, Heartbeat, HeartbeatReply, Held
from stoker.timers import TimerSettings
from worker.agent.backoff import Backoff
from worker.host.address import advertised
from worker.host.hint import parse_hint
from worker.host.processes import boot_id, kill_session
from worker.host.records import AgentRecord, mark_ended, unfinished
from worker.node.devices import capacity, load
from worker.node.flush_spool import clear, flush_spool
from worker.node.launching import Launcher
from worker.node.warm_keeper import WarmKeeper
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)


class NodeHeartbeat:
    """Beats in a thread of its own until it is stopped."""

    def __init__(self, settings: WorkerSettings, timers: TimerSettings, warm: WarmKeeper) -> None:
        self._settings = settings
        self._warm = warm
        self._interval = timers.heartbeat
        self._glance = min(1.0, timers.heartbeat / 4)
        self._backoff = Backoff(timers.backoff, timers.heartbeat)
        self._timeout = min(15.0, max(0.5, timers.lease / 20))
        self.launcher = Launcher(settings, patience=max(15.0, timers.heartbeat), on_launch=self.nudge)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = threading.Event()
        self._reported_dead: set[Path] = set()
        self._was_warm = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        key = settings.key.get_secret_value()
        headers = {"Authorization": f"Bearer {key}", "User-Agent": "stoker-worker"}
        self._client = httpx.Client(base_url=settings.url, headers=headers, timeout=self._timeout, trust_env=False)

    def start(self) -> None:
        self._thread.start()

    def nudge(self) -> None:
        """An agent was started: look at it, so that its death is seen."""
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        self._stopping.set()
        self.nudge()
        if self._thread.ident is not None:
            self._thread.join(self._timeout + 5)
        self._warm.close()
        self._client.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                rest = self._beat()
            except Exception:  # The node must not fall silent for a fault in one beat.
                log.exception("heartbeat")
                rest = self._backoff.next()
            self._wait(rest)

    def _beat(self) -> float:
        """One exchange with the server; answers the seconds until the next."""
        runs = list(unfinished(self._settings.runs))
        dead = [(home, record) for home, record in runs if not record.alive()]
        for home, record in dead:
            self._bury(home, record)
        self._was_warm = self._warm.look()
        body = Heartbeat(
            name=self._settings.worker_name,
            boot_id=boot_id(),
            version=_version(),
            address=advertised(self._settings),
            capacity=capacity(self._settings),
            held=tuple(Held(attempt_id=r.attempt_id, epoch=r.epoch, alive=(h, r) not in dead) for h, r in runs[:1024]),
            warm=self._was_warm,
            load=load(),
        )
        try:
            reply = self._post(body)
        except (httpx.HTTPError, ValidationError) as error:
            log.warning("heartbeat: %s", error or repr(error))
            return self._backoff.next()
        self._backoff.reset()
        self._settings.heard.touch()
        for home, _ in dead:
            mark_ended(home, "agent_lost")
            clear(home)
        self._obey(reply)
        self._interval = max(0.01, reply.interval_seconds)
        return self._interval

    def _post(self, body: Heartbeat) -> HeartbeatReply:
        answer = self._client.post(
            "/v1/workers/heartbeat", content=body.model_dump_json(), headers={"Content-Type": "application/json"}
        )
        answer.raise_for_status()
        return HeartbeatReply.model_validate_json(answer.content)

    def _bury(self, home: Path, record: AgentRecord) -> None:
        """Before a death is announced, nothing of the attempt runs any more and its last words are sent."""
        if home in self._reported_dead:
            return
        if record.boot_id == boot_id() and (left := kill_session(record.process)):
            log.warning("%s: its agent died and left %d processes", record.attempt_id, left)
        flush_spool(home, record.attempt_id, self._settings, self._timeout)
        self._reported_dead.add(home)

    def _obey(self, reply: HeartbeatReply) -> None:
        for lost in reply.stale:
            self._end(lost)
        for placed in reply.assigned:
            try:
                self.launcher.launch(parse_hint(placed.attempt_id, placed.epoch))
            except (ValueError, OSError) as error:
                log.error("%s: not launched: %s", placed.attempt_id, error)

    def _end(self, lost: Assignment) -> None:
        for home, record in unfinished(self._settings.runs):
            if record.attempt_id == lost.attempt_id and record.epoch == lost.epoch:
                log.warning("%s: no longer ours, killed", lost.attempt_id)
                record.process.send(9)
                kill_session(record.process)
                mark_ended(home, "stale_attempt")
                clear(home)

    def _wait(self, seconds: float) -> None:
        """Until the next beat is due, an agent dies, or the warm interpreter comes or goes."""
        end = time.monotonic() + seconds
        while not self._stopping.is_set() and (left := end - time.monotonic()) > 0:
            if self._died(min(left, self._glance)) or self._warm.look() != self._was_warm:
                return

    def _died(self, seconds: float) -> bool:
        """Whether an agent is dead or dies within some seconds."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        watched = []
        try:
            for home, record in unfinished(self._settings.runs):
                if not record.alive():
                    if home not in self._reported_dead:
                        return True
                    continue
                with suppress(ProcessLookupError):
                    watched.append(os.pidfd_open(record.pid))
                    poll.register(watched[-1], select.POLLIN)
            ready = [fd for fd, _ in poll.poll(seconds * 1000)]
        finally:
            for fd in watched:
                os.close(fd)
        if self._wake in ready:
            os.eventfd_read(self._wake)
        return any(not record.alive() for _, record in unfinished(self._settings.runs)) and any(fd in ready for fd in watched)


def _version() -> str:
    with suppress(PackageNotFoundError):
        return version("stoker")
    return "unknown"
