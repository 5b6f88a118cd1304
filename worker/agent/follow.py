"""Follows what the ranks write, and hands it on: numbers and notices to the sealer, files to the uploader."""

from pathlib import Path

from stoker.events import Artifact, Finished, Metrics, Notice, Phase, Progress, Saved, Started
from worker.agent.clock import now
from worker.agent.journal import JournalEvent, JournalTail
from worker.agent.logs import LogTail
from worker.agent.sealer import Sealer
from worker.agent.spool import Spool
from worker.agent.trace import Trace
from worker.agent.upload import SHARDS, Delivery, Parcel, Uploader, pack_artifact, pack_checkpoint, pack_shards

STREAMS = ("out", "err")
NOTICE_EVERY = 30.0
"""Seconds between two notices that a log is too fast."""
CORRUPT = "checkpoint_corrupt"
"""Notice by which a trainer says that it passed over a damaged checkpoint; its step is in the data."""


class Follower:
    def __init__(
        self,
        home: Path,
        ranks: range,
        spool: Spool,
        sealer: Sealer,
        uploader: Uploader,
        trace: Trace,
        spool_limit: int,
        nodes: int = 1,
    ) -> None:
        self._home = home
        self._ranks, self._nodes = ranks, nodes
        self._spool = spool
        self._sealer = sealer
        self._uploader = uploader
        self._trace = trace
        self._spool_limit = spool_limit
        self._journals = {rank: JournalTail(home / f"events-rank{rank}.jsonl") for rank in ranks}
        at = now()
        self._logs = {(r, s): LogTail(home / f"log-rank{r}.{s}", at) for r in ranks for s in STREAMS}
        self._told: dict[str, float] = {}
        self._counted: dict[str, int] = {}
        self._parcels = 0
        self._synced = at
        self.finished: dict[int, Finished] = {}
        self.corrupt: list[int] = []
        self.failed_final: str | None = None
        """Why the weights the run ended with could not be stored."""

    def turn(self, *, last: bool = False) -> bool:
        """Takes what is new; answers whether it should be reported at once. Raises OSError when the disk is full."""
        at = now()
        urgent = False
        for rank, journal in self._journals.items():
            for event in journal.read():
                urgent |= self._hear(rank, event, at)
            self._tell_damaged(rank, journal, at)
        for delivery in self._uploader.collect():
            self._delivered(delivery)
            urgent = True
        # Before logs, so that a flood of them does not hold up the numbers.
        if last or self._sealer.due(at):
            self._sealer.flush()
        self._read_logs(at, last=last)
        if last or at - self._synced >= 1.0:
            self._spool.sync()
            self._synced = at
        return urgent

    def tell(self, notice: Notice) -> None:
        """What the agent itself has to say."""
        self._sealer.notice(notice)

    def _hear(self, rank: int, event: JournalEvent, at: float) -> bool:
        """Answers whether the event is urgent."""
        match event:
            case Finished():
                self.finished[rank] = event
                return False
            case Notice():
                if event.code == CORRUPT and type(step := event.data.get("step", event.step)) is int:
                    self.corrupt.append(step)
                self._sealer.notice(event, rank)
                return False
        if rank != 0 and rank == self._ranks.start and isinstance(event, Saved):
            self._send(event)
        return rank == 0 and self._hear_first(event, at)

    def _hear_first(self, event: Started | Phase | Metrics | Progress | Saved | Artifact, at: float) -> bool:
        match event:
            case Started():
                self._trace.mark("started")
                self._sealer.started(event)
                return True
            case Phase():
                self._sealer.phase(event, at)
            case Metrics():
                self._sealer.metrics(event, at)
            case Progress():
                self._sealer.progress(event, at)
            case Saved() | Artifact():
                self._sealer.flush()
                self._send(event)
        return False

    def _send(self, event: Saved | Artifact) -> None:
        self._parcels += 1
        try:
            parcel = self._pack(event) if isinstance(event, Saved) else pack_artifact(self._home, event, self._parcels)
        except (OSError, ValueError, TypeError) as error:
            what = f"the checkpoint of step {event.step}" if isinstance(event, Saved) else f"artifact {event.name}"
            self._lost(f"{what} could not be read: {error}", event.step if isinstance(event, Saved) else None)
            if isinstance(event, Saved) and event.final:
                self.failed_final = str(error)
            return
        if parcel.files:
            self._uploader.send(parcel)

    def _pack(self, event: Saved) -> Parcel:
        """All of a checkpoint for node 0; for the others, what they have of it."""
        if self._ranks.start == 0:
            return pack_checkpoint(self._home, event, self._parcels, nodes=self._nodes)
        return pack_shards(self._home, event, self._parcels)

    def _delivered(self, delivery: Delivery) -> None:
        parcel = delivery.parcel
        if delivery.error is None:
            if parcel.kind != SHARDS:
                self._sealer.stored(parcel.kind, parcel.header)
            return
        self._lost(f"{parcel.kind} was not stored: {delivery.error}", parcel.step)
        if parcel.final:
            self.failed_final = delivery.error

    def _lost(self, message: str, step: int | None) -> None:
        self._sealer.notice(Notice(level="error", code="upload_failed", message=message, step=step))

    def _tell_damaged(self, rank: int, journal: JournalTail, at: float) -> None:
        count = journal.damaged
        if count and self._may_tell(f"journal {rank}", count, at):
            text = f"{count} lines of rank {rank}'s journal could not be read"
            self._sealer.notice(Notice(level="warning", code="journal_damaged", message=text), rank)

    def _read_logs(self, at: float, *, last: bool) -> None:
        if self._spool.pending_bytes > self._spool_limit:
            if self._may_tell("spool", int(at), at):
                text = "the server is away and the spool is full; logs wait, and may be dropped"
                self._sealer.notice(Notice(level="warning", code="logs_held_back", message=text))
            return
        for (rank, stream), tail in self._logs.items():
            for chunk in tail.read(at, last=last):
                self._sealer.log(rank, stream, chunk)
            if tail.skipped and self._may_tell(f"log {rank} {stream}", tail.skipped, at, always=last):
                text = f"{tail.skipped} bytes of rank {rank}'s std{stream} were dropped: it writes more than 1 MiB/s"
                self._sealer.notice(Notice(level="warning", code="logs_dropped", message=text), rank)

    def _may_tell(self, what: str, count: int, at: float, *, always: bool = False) -> bool:
        """Whether a count has grown and was not told of too recently."""
        if self._counted.get(what) == count or (at - self._told.get(what, -NOTICE_EVERY) < NOTICE_EVERY and not always):
            return False
        self._told[what], self._counted[what] = at, count
        return True
