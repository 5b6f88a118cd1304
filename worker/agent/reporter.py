"""Keeps the server informed: sends what the spool holds in batches until it is stored, and hears what is wanted."""

import logging
import threading
from dataclasses import dataclass

from stoker.protocol import Finish, FinishReply, Rendezvous, ReportReply, Timers
from stoker.status import Desired
from worker.agent.api import ApiFailure, Behind, Refused, ServerApi, Stale, Unreachable
from worker.agent.backoff import Backoff
from worker.agent.clock import now
from worker.agent.spool import Spool

BATCH_BYTES = 2 << 20
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Orders:
    desired: Desired
    stop_reason: str | None = None


class Reporter:
    """First driven by hand (`beat`), then, once the ranks are forked, by its own thread (`start`)."""

    def __init__(
        self, attempt_id: str, api: ServerApi, spool: Spool, timers: Timers, heartbeat: float, claimed: float, desired: Desired
    ) -> None:
        self._attempt_id = attempt_id
        self._api = api
        self._spool = spool
        self._timers = timers
        self._heartbeat = heartbeat
        self._backoff = Backoff(timers.report_interval, heartbeat)
        self._changed = threading.Condition()
        self._urgent = False
        self._unsure = False
        self._closing = False
        self._finish: Finish | None = None
        self._acked = 0
        self._sent = claimed
        self._thread: threading.Thread | None = None
        self.last_contact = claimed
        """When the last request that was answered had been sent: the lease is at least that young."""
        self.orders = Orders(desired)
        self.meeting: Rendezvous | None = None
        """Where the ranks of all nodes meet, once every node is prepared."""
        self.stale = False
        """The attempt is another's; nothing may be reported any more."""
        self.disarmed = False
        """No rank runs: it is safe to ask even when the lease may be over."""
        self.done = threading.Event()
        """The end was reported, or can never be."""
        self.reply: FinishReply | None = None
        self.failure: Exception | None = None
        """What ended the thread before its time."""

    @property
    def silence(self) -> float:
        """Seconds since the server was last known to hold the lease for this attempt."""
        return now() - self.last_contact

    def beat(self) -> None:
        """One report when it is due, in the calling thread. Raises Stale; other failures only leave the silence to grow."""
        if now() - self._sent >= self._heartbeat:
            self.ask()

    def ask(self) -> None:
        """One report now, in the calling thread, as `beat` makes it."""
        try:
            self._report()
        except (Unreachable, Refused, Behind) as error:
            log.warning("report: %s", error)

    def start(self) -> None:
        """Begins to report in a thread. No process may be forked from here on."""
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    def hurry(self) -> None:
        """What the spool holds now is worth a report of its own."""
        with self._changed:
            self._urgent = True
            self._changed.notify()

    def finish(self, finish: Finish) -> None:
        """Asks for the end to be reported once the spool is drained; `done` is set when it was."""
        with self._changed:
            self._finish = finish
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._api.close()

    def _run(self) -> None:
        try:
            while not self._closing and not self.stale and not self.done.is_set():
                self._turn()
        except Exception as error:
            log.exception("the reporter ended")
            self.failure = error
        finally:
            self.done.set()

    def _turn(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._urgent or self._closing or self._finish is not None, self._pause())
            urgent, self._urgent = self._urgent, False
        if self._closing or not (urgent or self._finish or self._due()):
            return
        if self.silence >= self._timers.gone and not self.disarmed:
            self._rest(self._timers.report_interval / 10)
            return
        try:
            self._speak()
        except Stale as error:
            log.warning("%s", error)
            self.stale = True
        except ApiFailure as error:
            log.warning("%s", error)
            self._unsure = isinstance(error, Behind)
            if isinstance(error, Refused) and self._finish is not None and not self._more():
                raise
            self._rest(self._backoff.next())
            self.hurry()

    def _speak(self) -> None:
        """Reports all there is; at the end, the end."""
        if self._finish is None or self._unsure or self._more():
            # Not once the end may have been accepted and its answer lost: an ended attempt takes no reports.
            self._report()
            self._unsure = False
        while self._more() and not self._closing:
            self._report()
        finish = self._finish
        if finish is not None and not self._more():
            self._sent = now()
            self.reply = self._api.finish(self._attempt_id, finish)
            self.done.set()

    def _report(self) -> None:
        self._sent = sent = now()
        # After a silence longer than the lease, first ask whether there is still somebody to tell.
        body, _ = self._spool.batch(self._acked, BATCH_BYTES) if self.silence < self._timers.lease else (b"", 0)
        before = self._acked
        reply = self._api.report(self._attempt_id, body)
        self.last_contact = sent
        self._heed(reply)
        if body and self._acked <= before:
            raise Behind(f"frames after {before} were not stored")
        self._backoff.reset()

    def _heed(self, reply: ReportReply) -> None:
        # The server's word counts in both directions: what it does not have is sent again, while it is still here.
        self._acked = min(reply.acked_through, self._spool.last_seq)
        self._spool.forget(self._acked)
        self.orders = Orders(reply.desired, reply.stop_reason)
        self.meeting = reply.meeting

    def _more(self) -> bool:
        return self._spool.last_seq > self._acked

    def _due(self) -> bool:
        return now() - self._sent >= (self._timers.report_interval if self._more() else self._heartbeat)

    def _pause(self) -> float:
        """Until the next look at whether something is due."""
        return min(self._timers.report_interval, self._heartbeat) / 4

    def _rest(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)
