"""Watches the ranks from their start to their end, obeys the server, and stops them in time when it cannot be reached."""

from dataclasses import dataclass

from stoker.events import Notice
from stoker.protocol import Timers
from worker.agent.api import Stale
from worker.agent.clock import now
from worker.agent.follow import Follower
from worker.agent.memory import oom_kills
from worker.agent.ranks import Ranks
from worker.agent.reporter import Reporter
from worker.agent.upload import Uploader
from worker.agent.verdict import SUCCESS, Verdict, decide
from worker.agent.watchdog import Hang, Watchdog

TICK = 0.05
"""Seconds between two looks at the journals; the end of a rank is seen at once."""
STACKS = 5.0
"""Seconds that ranks which hang have to write their stacks."""
LAST_WORDS = 0.3
"""Seconds that the other ranks have, after one failed, to say why themselves."""


@dataclass(frozen=True)
class Stop:
    reason: str
    kill_at: float
    """When ranks that still run are killed."""


class Flag:
    """Set by a signal: this process was told to leave."""

    def __init__(self) -> None:
        self.raised = False

    def __call__(self, *_: object) -> None:
        self.raised = True


class Supervisor:
    def __init__(
        self,
        ranks: Ranks,
        follower: Follower,
        reporter: Reporter,
        uploader: Uploader,
        timers: Timers,
        leave: Flag,
        watchdog: Watchdog,
    ) -> None:
        self._ranks = ranks
        self._watchdog = watchdog
        self._hang: Hang | None = None
        self._follower = follower
        self._reporter = reporter
        self._uploader = uploader
        self._timers = timers
        self._leave = leave
        self._stop: Stop | None = None
        self._kill_at: float | None = None
        self._oom_kills = oom_kills()

    def watch(self) -> Verdict:
        """Until no rank runs; the verdict. Raises Stale when the attempt is another's: then every rank is dead already."""
        while self._ranks.running:
            self._ranks.wait(TICK)
            self._turn()
        self._ranks.reap_all()
        self._reporter.disarmed = True
        self._follower.turn(last=True)
        ends = self._ranks.ends(self._follower.finished)
        if self._hang is not None and not any(e.rank == 0 and e.finished and e.finished.reason in SUCCESS for e in ends):
            return Verdict("hang", self._hang.message, step=self._hang.step)
        return decide(ends, self._stop.reason if self._stop else None, out_of_memory=oom_kills() > self._oom_kills)

    def deliver(self, verdict: Verdict) -> Verdict:
        """Until every file is stored; a cancelled run's are waited for no longer than the grace. Raises Stale."""
        give_up = now() + self._timers.stop_grace if verdict.reason == "cancelled_by_user" else None
        while self._uploader.waiting and not (give_up and now() > give_up):
            self._check_stale()
            if give_up is None and self._reporter.orders.stop_reason == "peer_lost":
                give_up = now() + self._timers.stop_grace  # What a node that is gone was to store never comes.
            self._reporter.done.wait(TICK)
            if self._follower.turn():
                self._reporter.hurry()
        self._follower.turn(last=True)
        if self._follower.failed_final and verdict.reason in ("completed", "early_stopped"):
            message = f"the final checkpoint could not be stored: {self._follower.failed_final}"
            return Verdict("upload_failed", message, verdict.exit_code, verdict.step, verdict.metrics)
        return verdict

    def _turn(self) -> None:
        self._fence()
        self._check_stale()
        if self._follower.turn():
            self._reporter.hurry()
        self._obey()
        self._watch_deaths()
        self._watch_progress()
        at = now()
        if (self._stop and at >= self._stop.kill_at) or (self._kill_at is not None and at >= self._kill_at):
            self._ranks.kill()

    def _fence(self) -> None:
        """Comes first in each turn: after being stopped for long, ranks die before anything else happens."""
        silence = self._reporter.silence
        if silence >= self._timers.gone:
            self._begin_stop("self_fenced", 0.0)
            self._ranks.kill()
            self._ranks.reap_all()
            self._reporter.disarmed = True
        elif silence >= self._timers.self_fence:
            self._begin_stop("self_fenced", self._timers.gone - silence)

    def _check_stale(self) -> None:
        if self._reporter.stale or self._uploader.stale:
            self._ranks.kill()
            self._ranks.reap_all()
            raise Stale("the attempt is another's")
        if self._reporter.failure is not None:
            raise self._reporter.failure

    def _obey(self) -> None:
        orders = self._reporter.orders
        if orders.stop_reason == "peer_lost":
            self._begin_stop("peer_lost", LAST_WORDS)
        elif orders.desired == "cancel":
            self._begin_stop(orders.stop_reason or "cancelled_by_user", self._timers.stop_grace)
        elif orders.desired == "pause":
            self._begin_stop(orders.stop_reason or "paused_by_user", self._timers.stop_grace)
        elif orders.stop_reason:
            self._begin_stop(orders.stop_reason, self._timers.stop_grace)
        if self._leave.raised:
            self._begin_stop("preempted", self._timers.stop_grace)

    def _begin_stop(self, reason: str, grace: float) -> None:
        """The first request starts the clock; a cancel may follow a pause and takes its place as the reason."""
        if self._stop is None:
            self._stop = Stop(reason, now() + grace)
            self._ranks.terminate()
        elif reason == "cancelled_by_user" and self._stop.reason != reason:
            self._stop = Stop(reason, self._stop.kill_at)

    def _watch_progress(self) -> None:
        """Ranks that stand still say where, and are ended. Those that were told to stop have a deadline of their own."""
        ending = self._stop is not None or self._kill_at is not None or self._hang is not None
        if ending or not (states := self._ranks.states):
            return
        stuck = self._watchdog.look(now(), states)
        if not stuck:
            return
        self._hang = self._watchdog.judge(stuck, states)
        steps = {str(rank): None if liveness is None else liveness.step for rank, liveness in self._hang.liveness_by_rank.items()}
        data = {"first": list(self._hang.first), "steps": steps, "states": {str(r): s for r, s in states.items()}}
        self._follower.tell(Notice(level="error", code="hang", message=self._hang.message, step=self._hang.step, data=data))
        self._reporter.hurry()
        self._ranks.dump(now() + STACKS)
        self._ranks.kill()

    def _watch_deaths(self) -> None:
        """When one rank is gone the others wait for it for ever: they are ended too."""
        codes = self._ranks.codes
        if not codes or not self._ranks.running:
            return
        if any(code < 0 for code in codes):
            grace = 0.0
        elif any(code not in (0, 75) for code in codes):
            grace = LAST_WORDS
        else:
            grace = self._timers.stop_grace
        deadline = now() + grace
        self._kill_at = deadline if self._kill_at is None else min(self._kill_at, deadline)
