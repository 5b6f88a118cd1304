"""One attempt from its claim to its end: the whole life of an agent on one screen."""

import errno
import json
import logging
import os
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from stoker.protocol import Claim, ClaimReply, Finish, Rendezvous
from stoker.spec.debug import Debug
from stoker.spec.distributed import Distributed
from stoker.timers import TimerSettings, scaled_seconds, timers_from_environment
from worker.agent.api import ApiFailure, ServerApi, Stale, Unreachable
from worker.agent.backoff import Backoff
from worker.agent.cache import BlobCache, Damaged
from worker.agent.clock import now
from worker.agent.environment import Share, rank_environments
from worker.agent.follow import Follower
from worker.agent.ranks import Ranks
from worker.agent.reporter import Reporter
from worker.agent.sealer import Sealer, json_number
from worker.agent.spawn import Spawner
from worker.agent.supervise import Flag, Supervisor
from worker.agent.trace import Trace
from worker.agent.upload import Uploader
from worker.agent.verdict import Verdict
from worker.agent.watchdog import Watchdog
from worker.agent.workspace import NoCheckpoint, Occupied, Workspace, prune
from worker.host.address import advertised, interface_of, rendezvous_at
from worker.settings import WorkerSettings

RENDEZVOUS = 3600.0
"""Seconds a node that is prepared waits for the others, which may have much to download."""
PATIENCE = 86_400.0
"""Seconds an agent whose ranks are gone waits for a server that is away."""
SPOOL_LIMIT = 1 << 30
DISTRIBUTED: TypeAdapter[Distributed] = TypeAdapter(Distributed)
DEBUG: TypeAdapter[Debug] = TypeAdapter(Debug)
log = logging.getLogger(__name__)


def run_agent(attempt_id: str, epoch: int, settings: WorkerSettings, spawner: Spawner) -> int:
    """Runs an attempt to its end; answers the process's exit code: 0 unless the attempt was not this agent's to run."""
    leave = Flag()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    with suppress(PermissionError):  # Already the leader of a group, when started by hand.
        os.setsid()
    workspace = Workspace(settings.runs / attempt_id)
    trace = Trace(workspace.home, settings.trace_launch)
    agent_id = uuid.uuid4().hex
    try:
        workspace.occupy(attempt_id, epoch, agent_id)
        trace.mark("agent")
        timers = timers_from_environment()
        claim, at = _claim(attempt_id, epoch, settings, agent_id, timers)
    except Occupied as error:
        log.info("%s: %s", attempt_id, error)
        return 1
    except ApiFailure as error:
        log.warning("%s: not claimed: %s", attempt_id, error)
        workspace.end("not_claimed")
        return 1
    trace.mark("claimed")
    attempt = _Attempt(workspace, claim, at, settings, timers, leave, trace)
    reason = attempt.run(spawner)
    if reason is None:  # The node finds a dead agent here and tells the server so.
        return 1
    workspace.end(reason)
    prune(settings.runs, settings.worker_keep_runs)
    return 0


def _claim(
    attempt_id: str, epoch: int, settings: WorkerSettings, agent_id: str, timers: TimerSettings
) -> tuple[ClaimReply, float]:
    """The claim, and when it was asked for. A lost answer is asked for again, which gives the same one.

    Raises Stale or Refused when the attempt is not this agent's, Unreachable when no answer came within the lease.
    """
    api = ServerApi(settings.url, settings.key.get_secret_value(), _timeout(timers.lease))
    backoff = Backoff(timers.backoff / 10, timers.heartbeat)
    first = now()
    try:
        while True:
            asked = now()
            try:
                body = Claim(worker=settings.worker_name, epoch=epoch, agent_id=agent_id, pid=os.getpid())
                return api.claim(attempt_id, body), asked
            except Unreachable as error:
                if now() - first > timers.lease:
                    raise
                log.info("claim: %s", error)
                time.sleep(backoff.next())
    finally:
        api.close()


class _Attempt:
    """What an agent holds once its claim was granted."""

    def __init__(
        self,
        workspace: Workspace,
        claim: ClaimReply,
        claimed: float,
        settings: WorkerSettings,
        timers: TimerSettings,
        leave: Flag,
        trace: Trace,
    ) -> None:
        self._workspace = workspace
        self._claim = claim
        self._timers = claim.timers
        self._settings = settings
        self._leave = leave
        self._trace = trace
        self._heartbeat = min(timers.heartbeat, claim.timers.lease / 10)
        self._open: Callable[[], ServerApi] = lambda: ServerApi(
            settings.url, claim.token, _timeout(claim.timers.lease), claim.epoch
        )
        self._spool = workspace.spool()
        self._cache = BlobCache(settings.cache, int(settings.worker_cache_gb * 2**30))
        self._claimed = claimed
        self._corrupt: list[int] = []
        self._ranks = Ranks(workspace.home)
        self._uploader: Uploader | None = None
        self._address = advertised(settings) if claim.nodes > 1 else ""
        self._meeting: Rendezvous | None = None
        self._numbers = range(0)

    def run(self, spawner: Spawner) -> str | None:
        """Until the end is reported; answers its reason, or None when it could not be."""
        api = self._open()
        reporter = self._reporter(api)
        try:
            verdict = self._prepare(api, reporter)
            api.close()
            self._trace.mark("prepared")
            if verdict is None:
                verdict = self._start(spawner)
            # From here on there are threads, and nothing is forked any more.
            reporter = self._reporter(self._open(), reporter)
            reporter.start()
            if verdict is None:
                verdict = self._supervise(reporter)
            return self._finish(reporter, verdict)
        except Stale:
            return "stale_attempt"
        except Exception as error:
            return self._give_up(reporter, error)
        finally:
            self._ranks.kill()
            self._ranks.reap_all()
            if self._uploader is not None:
                self._uploader.close()
            reporter.close()
            self._spool.close()

    def _reporter(self, api: ServerApi, before: Reporter | None = None) -> Reporter:
        claim = self._claim
        after = Reporter(claim.attempt_id, api, self._spool, self._timers, self._heartbeat, self._claimed, claim.desired)
        if before is not None:
            after.last_contact, after.orders = before.last_contact, before.orders
        return after

    def _prepare(self, api: ServerApi, reporter: Reporter) -> Verdict | None:
        """Fills the workspace; a verdict when the attempt cannot start. Raises Stale."""
        backoff = Backoff(self._timers.report_interval, self._heartbeat)

        def beat() -> None:
            reporter.beat()
            stop = _asked_to_stop(reporter, self._leave)
            if stop or reporter.silence >= self._timers.self_fence:
                raise _NotStarted(stop or "self_fenced")

        def wait() -> None:
            time.sleep(backoff.next())
            beat()

        try:
            self._workspace.remember(self._claim)
            beat()
            self._workspace.place_datasets(self._claim, api, self._cache, beat, wait)
            self._corrupt += self._workspace.restore(self._claim, api, self._cache, beat, wait)
            self._cache.trim()
            if self._claim.nodes > 1:
                self._meet(reporter, beat)
        except _NotStarted as stopped:
            return Verdict(stopped.reason, "stopped before its ranks were started")
        except NoCheckpoint as error:
            self._corrupt += error.steps
            return Verdict("no_valid_checkpoint", str(error))
        except (Damaged, ValueError) as error:
            return Verdict("data_error", str(error))
        except NobodyCame as error:
            return Verdict("spawn_failed", str(error))
        return None

    def _meet(self, reporter: Reporter, beat: Callable[[], None]) -> None:
        """Says that this node is prepared, and waits until all are. Raises Stale, NobodyCame, or what `beat` raises."""
        try:
            offered = rendezvous_at(self._address)
        except OSError as error:
            raise NobodyCame(f"this node offers no place to meet: {error}") from error
        self._spool.append("prepared", offered.model_dump())
        first = now()
        while reporter.meeting is None:
            if now() - first > RENDEZVOUS:
                raise NobodyCame(f"the other nodes were not prepared within {RENDEZVOUS:.0f} s")
            reporter.ask()
            beat()
            time.sleep(min(0.25, self._timers.report_interval / 4))
        self._meeting = reporter.meeting

    def _start(self, spawner: Spawner) -> Verdict | None:
        claim = self._claim
        try:
            spec = DISTRIBUTED.validate_json(json.dumps(claim.spec.get("distributed", {"strategy": "single"})))
        except ValidationError as error:
            return Verdict("spec_error", f"distributed: {error.error_count()} errors; this worker may be older than the server")
        cpus, gpus = int(claim.devices.get("cpus") or 1), [int(i) for i in claim.devices.get("gpus") or ()]
        try:
            share = self._share(spec.processes_per_node)
            self._ranks.start(spawner, rank_environments(share, cpus, gpus, os.environ))
        except OSError as error:
            return Verdict("spawn_failed", str(error))
        self._trace.mark("spawned")
        self._numbers = share.numbers
        return None

    def _share(self, ranks: int) -> Share:
        """This node's ranks among all. Raises OSError when no port is free."""
        claim = self._claim
        if self._meeting is None:
            return Share(ranks, rendezvous_at("127.0.0.1"))
        return Share(ranks, self._meeting, claim.node, claim.nodes, interface_of(self._address))

    def _supervise(self, reporter: Reporter) -> Verdict:
        home = self._workspace.home
        sealer = Sealer(self._spool, self._timers.report_interval)
        self._uploader = Uploader(self._open(), self._cache, Backoff(self._timers.report_interval, self._heartbeat))
        self._uploader.start()
        follower = Follower(home, self._numbers, self._spool, sealer, self._uploader, self._trace, SPOOL_LIMIT, self._claim.nodes)
        watchdog = watchdog_of(self._claim.spec, home)
        supervisor = Supervisor(self._ranks, follower, reporter, self._uploader, self._timers, self._leave, watchdog)
        verdict = supervisor.deliver(supervisor.watch())
        self._corrupt += follower.corrupt
        return verdict

    def _finish(self, reporter: Reporter, verdict: Verdict) -> str | None:
        """Reports the end once all before it is stored; None when it could not be. Raises Stale."""
        self._spool.sync()
        reporter.disarmed = True
        if verdict.reason == "disk_full":
            clear_disk(self._settings)
        reporter.finish(
            Finish(
                epoch=self._claim.epoch,
                reason=verdict.reason,
                message=verdict.message[-16_000:],
                exit_code=verdict.exit_code,
                step=verdict.step,
                metrics={key: json_number(value) for key, value in list(verdict.metrics.items())[:1000]},
                last_seq=self._spool.last_seq,
                corrupt_steps=tuple(dict.fromkeys(self._corrupt)),
            )
        )
        reporter.done.wait(PATIENCE)
        if reporter.stale:
            raise Stale("the attempt is another's")
        if reporter.reply is None:
            log.error("%s: its end was not reported: %s", self._claim.attempt_id, reporter.failure or "no answer")
            return None
        self._trace.mark("finished")
        return verdict.reason

    def _give_up(self, reporter: Reporter, error: Exception) -> str | None:
        """Something failed that should not have: the ranks go, and the server hears why if it can."""
        log.exception("%s: the agent failed", self._claim.attempt_id)
        self._ranks.kill()
        self._ranks.reap_all()
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        verdict = Verdict("disk_full" if full else "agent_lost", f"{type(error).__name__}: {error}")
        # Its own connection: the other may be what failed, or closed for the fork of the ranks.
        reporter.close()
        last = self._reporter(self._open(), reporter)
        last.start()
        try:
            return self._finish(last, verdict)
        except Stale:
            return "stale_attempt"
        except OSError:
            return None
        finally:
            last.close()


def clear_disk(settings: WorkerSettings) -> None:
    """All that this node keeps for convenience: workspaces of ended attempts, and blobs that it could download again."""
    prune(settings.runs, keep=0)
    BlobCache(settings.cache, 0).trim()


def watchdog_of(spec: Mapping[str, Any], home: Path) -> Watchdog:
    """As the spec asks, in scaled seconds; with the usual patience for a spec of a newer server."""
    try:
        debug = DEBUG.validate_json(json.dumps(spec.get("debug", {})))
    except ValidationError:
        debug = Debug()
    timeout = None if debug.hang_timeout_seconds is None else scaled_seconds(debug.hang_timeout_seconds)
    return Watchdog(home, timeout, scaled_seconds(debug.hang_grace_seconds))


class NobodyCame(Exception):
    """The nodes of an attempt did not find together."""


class _NotStarted(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _asked_to_stop(reporter: Reporter, leave: Flag) -> str | None:
    orders = reporter.orders
    if orders.desired != "run" or orders.stop_reason:
        return orders.stop_reason or ("cancelled_by_user" if orders.desired == "cancel" else "paused_by_user")
    return "preempted" if leave.raised else None


def _timeout(lease: float) -> float:
    """Seconds to wait for one answer: short beside the lease, so that silence is noticed long before its end."""
    return min(15.0, max(0.3, lease / 20))
