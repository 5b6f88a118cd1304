"""The dispatch protocol against the real services and a real database: random histories, and zombies steered into them.

The numbers are those of the invariants in the design: I1 accepted jobs exist, I2 one idempotency key makes one job, I3 the log replays to the row, I4 epochs never
fall, I5 attempts are bounded, I6 terminal is final, I7 the newest attempt decides, I8 one live attempt per job, I9 what was
acknowledged is stored once, I11 nothing stale is accepted, I12 acknowledgements never fall, I16 and I20 devices, L1 all ends.
"""

import os
import shutil
import tempfile
from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import func, select
from sqlmodel import Session

from server import idempotency
from server.attempts import service as attempts
from server.attempts.store import ATTEMPTS
from server.auth import AttemptPrincipal, Principal
from server.datasets.tables import Dataset
from server.db import Database, utcnow
from server.db.migrate import migrate
from server.errors import Refusal
from server.events.store import EVENTS
from server.hub import Hub
from server.jobs import service as jobs
from server.jobs.prepared import Prepared
from server.jobs.store import JOBS
from server.jobs.submit import QueueLimit, insert
from server.logs.tables import LogChunk
from server.queue import Hints
from server.reaper import overdue, reap, shift
from server.scheduler import Scheduler
from server.settings import Settings
from server.telemetry import Telemetry
from server.workers import service as workers
from stoker.frames import Frame
from stoker.plan import Needs
from stoker.protocol import Claim, Finish, Heartbeat
from stoker.reasons import INFRA_CAP
from stoker.spec import JobSpec
from stoker.status import TERMINAL, TRANSITIONS
from stoker.timers import TimerSettings

LIMIT = QueueLimit(Settings())
TIMERS = TimerSettings()
MAX_RETRIES = 2
WHO = Principal("key", "key", None, frozenset({"submit"}))
SPEC = '{"resources":{"max_retries":2},"data":{"source":{"dataset":"toy@1"}},"checkpoint":{}}'
REASONS = ("completed", "user_error", "rank_lost", "preempted", "spec_error", "paused_by_user", "cancelled_by_user")
COLUMNS: dict[str, Any] = {
    "project": "default",
    "name": None,
    "kind": "train",
    "priority": 0,
    "labels": {},
    "submitted": "{}",
    "spec": SPEC,
    "origins": {},
    "spec_digest": "d",
    "plan": {},
    "needs": Needs(device="cpu", ranks=1, cpus=1, memory_bytes=1),
    "objective": None,
    "progress": {"step": 0},
}
LOGS = LogChunk.metadata.tables["log_chunks"]
Key = tuple[str, int]


class Protocol(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.mkdtemp(prefix="stoker-protocol-")
        url = f"sqlite:///{self.home}/s.db"
        migrate(url)
        self.db = Database(url, readers=1)
        self.scheduler = Scheduler(self.db, Hub(), Hints(""), TIMERS, Telemetry())
        self.accepted: set[str] = set()
        self.answers: dict[str, bytes] = {}
        self.job_of: dict[str, str] = {}
        self.held: dict[Key, int] = {}
        """Agents that believe they run, and the frames they numbered; one that was replaced stays here as a zombie."""
        self.acked: dict[Key, int] = {}
        self.ended: dict[str, str] = {}
        self.epochs: dict[str, int] = {}

    @initialize()
    def data_set(self) -> None:
        row = dict(
            id="ds", project="default", name="toy", version=1, digest="d", bytes=0, files=[], facts={}, created_at=utcnow()
        )
        self.db.write_now(lambda s: s.execute(Dataset.metadata.tables["datasets"].insert().values(row)) and None)
        self.beat()

    def beat(self, **more: Any) -> Any:
        body = {"name": "n", "boot_id": "b", "version": "v", "capacity": {"cpus": 2, "memory_bytes": 100}} | more
        return self.db.write_now(lambda s: workers.heartbeat(s, Heartbeat.model_validate(body), TIMERS))

    @rule()
    def submit(self) -> None:
        if len(self.accepted) < 4:
            prepared = Prepared(JobSpec.model_construct(), COLUMNS, ())
            self.accepted.add(self.db.write_now(lambda s: insert(s, LIMIT, prepared)).id)

    @rule(key=st.sampled_from(["one", "two"]))
    def submit_under_a_key(self, key: str) -> None:
        prepared = Prepared(JobSpec.model_construct(), COLUMNS, ())

        def work(session: Session) -> idempotency.Answer:
            return idempotency.Answer(202, insert(session, LIMIT, prepared).id.encode())

        answer, replayed = self.db.write_now(lambda s: idempotency._once(s, idempotency.Claim("default", key, "f"), work))
        assert replayed == (key in self.answers), "I2"
        assert self.answers.setdefault(key, answer.body) == answer.body, "I2"
        self.accepted.add(answer.body.decode())
        with pytest.raises(Refusal, match="idempotency_key_reused"):
            self.db.write_now(lambda s: idempotency._once(s, idempotency.Claim("default", key, "g"), work))

    @rule()
    def place(self) -> None:
        self.beat()
        self.db.write_now(self.scheduler.tick)

    @rule(dies=st.booleans())
    def claim_all(self, dies: bool) -> None:
        for given in self.beat().assigned:
            self.claim(given.attempt_id, given.epoch, f"agent-{len(self.held):08d}", dies)

    def claim(self, attempt_id: str, epoch: int, agent: str, dies: bool) -> None:
        asked = Claim(worker="n", epoch=epoch, agent_id=agent, pid=1)
        first = self.db.write_now(lambda s: attempts.claim(s, attempt_id, asked, b"p" * 32, TIMERS))
        again = self.db.write_now(lambda s: attempts.claim(s, attempt_id, asked, b"p" * 32, TIMERS))
        assert first == again
        self.refused(
            lambda s: attempts.claim(s, attempt_id, asked.model_copy(update={"agent_id": "stranger"}), b"p" * 32, TIMERS)
        )
        self.job_of[attempt_id] = first.job_id
        if not dies:
            self.held[attempt_id, epoch] = 0

    def refused(self, work: Any) -> None:
        with pytest.raises(Refusal, match="stale_attempt"):
            self.db.write_now(work)

    def act(self, index: int, work: Any) -> Any:
        """Let an agent write. What is accepted must be of the newest epoch; who is refused stops."""
        if not self.held:
            return None
        key = sorted(self.held)[index % len(self.held)]
        current, refused, answer = self.row(self.job_of[key[0]]), False, None
        try:
            answer = work(key, AttemptPrincipal(key[0], self.job_of[key[0]], key[1]))
        except Refusal as error:
            if error.code != "stale_attempt":
                raise
            del self.held[key]
            refused = True
        if refused:
            assert current.epoch != key[1] or self.attempt(key[0]).state == "ended"
            return None
        assert current.epoch == key[1], "I11"
        return answer

    @rule(index=st.integers(0, 9), count=st.integers(0, 3), lost=st.booleans())
    def report(self, index: int, count: int, lost: bool) -> None:
        def work(key: Key, who: AttemptPrincipal) -> None:
            at = self.held[key]
            head = {"rank": 0, "stream": "out", "offset": 0}
            frames = [Frame(i, "logs", head, b"x") for i in range(max(1, at), at + count + 1)]
            reply = self.db.write_now(lambda s: attempts.report(s, who, key[1], frames, TIMERS))
            if lost:  # the answer; the agent says it all again
                reply = self.db.write_now(lambda s: attempts.report(s, who, key[1], frames, TIMERS))
            assert reply.acked_through >= self.acked.get(key, 0), "I12"
            self.acked[key] = reply.acked_through
            if not lost:
                self.held[key] = reply.acked_through

        self.act(index, work)

    @rule(index=st.integers(0, 9))
    def start(self, index: int) -> None:
        def work(key: Key, who: AttemptPrincipal) -> None:
            head = {"step": 0, "total_steps": 9, "parameters": 1, "world_size": 1, "device": "cpu"}
            frame = Frame(self.acked.get(key, 0) + 1, "started", head)
            self.held[key] = self.acked[key] = self.db.write_now(
                lambda s: attempts.report(s, who, key[1], [frame], TIMERS)
            ).acked_through

        self.act(index, work)

    @rule(index=st.integers(0, 9), reason=st.sampled_from(REASONS), step=st.integers(0, 2))
    def finish(self, index: int, reason: str, step: int) -> None:
        def work(key: Key, who: AttemptPrincipal) -> None:
            said = Finish(epoch=key[1], reason=reason, step=step, last_seq=self.acked.get(key, 0))
            first = self.db.write_now(lambda s: attempts.finish(s, who, said))
            assert self.db.write_now(lambda s: attempts.finish(s, who, said)) == first
            del self.held[key]

        self.act(index, work)

    @precondition(lambda self: self.accepted)
    @rule(index=st.integers(0, 9), wish=st.sampled_from(["cancel", "pause", "resume", "retry"]))
    def steer(self, index: int, wish: str) -> None:
        job_id = sorted(self.accepted)[index % len(self.accepted)]
        asked: dict[str, Any] = {
            "cancel": lambda s: jobs.cancel(s, WHO, job_id, TIMERS),
            "pause": lambda s: jobs.pause(s, WHO, job_id, TIMERS),
            "resume": lambda s: jobs.resume(s, WHO, job_id),
            "retry": lambda s: jobs.retry(s, WHO, job_id, from_start=False),
        }
        try:
            self.db.write_now(lambda s: asked[wish](s).state)
        except Refusal as error:
            if error.code != "illegal_transition":
                raise
            return
        if wish == "retry":
            self.ended.pop(job_id, None)

    @rule(index=st.integers(0, 9))
    def agent_dies(self, index: int) -> None:
        if self.held:
            key = sorted(self.held)[index % len(self.held)]
            told = self.beat(held=[{"attempt_id": key[0], "epoch": key[1], "alive": False}])
            del self.held[key]
            assert all(a.attempt_id != key[0] for a in told.assigned)

    @rule(seconds=st.sampled_from([1, 70, 400]))
    def time_passes(self, seconds: int) -> None:
        """Every live time moves into the past, and the reaper looks."""
        self.db.write_now(lambda s: shift(s, timedelta(seconds=-seconds)))
        for attempt_id, job_id in self.db.read_now(lambda s: overdue(s, utcnow(), leases=True, timers=TIMERS)):
            self.db.write_now(lambda s, a=attempt_id, j=job_id: reap(s, a, j, TIMERS, leases=True))  # type: ignore[misc]

    @rule(what=st.sampled_from(["finish", "report", "start"]))
    def directed_zombie(self, what: str) -> None:
        """An agent sleeps through its lease, another takes over, and the first wakes up: random search alone misses this."""
        self.submit()
        self.place()
        self.claim_all(dies=False)
        old = sorted(self.held)
        self.time_passes(400)
        self.time_passes(70)
        self.place()
        self.claim_all(dies=False)
        for key in [k for k in old if k in self.held]:
            index = sorted(self.held).index(key)
            match what:
                case "finish":
                    self.finish(index, "completed", 1)
                case "report":
                    self.report(index, 1, False)
                case _:
                    self.start(index)

    def row(self, job_id: str) -> Any:
        return self.db.read_now(lambda s: s.execute(select(JOBS).where(JOBS.c.id == job_id)).one())

    def attempt(self, attempt_id: str) -> Any:
        return self.db.read_now(lambda s: s.execute(select(ATTEMPTS).where(ATTEMPTS.c.id == attempt_id)).one())

    @invariant()
    def everything_holds(self) -> None:
        rows, events, tries, chunks = self.db.read_now(
            lambda s: (
                {r.id: r for r in s.execute(select(JOBS))},
                list(s.execute(select(EVENTS).order_by(EVENTS.c.job_id, EVENTS.c.seq))),
                list(s.execute(select(ATTEMPTS))),
                {
                    (r[0], r[1]): r[2]
                    for r in s.execute(select(LOGS.c.job_id, LOGS.c.epoch, func.count()).group_by(LOGS.c.job_id, LOGS.c.epoch))
                },
            )
        )
        assert set(rows) == self.accepted, "I1"
        for job_id, row in rows.items():
            self.replay(row, [e for e in events if e.job_id == job_id])
            mine = [t for t in tries if t.job_id == job_id]
            live = [t for t in mine if t.state != "ended"]
            assert len(live) <= 1, "I8"
            assert bool(live) == (row.state in ("starting", "running", "finishing", "pausing", "cancelling")), "I16"
            assert all(t.epoch == row.epoch for t in live), "I7"
            assert row.counted_failures <= MAX_RETRIES + 1, "I5"
            assert row.infra_failures <= INFRA_CAP + 1, "I5"
            assert row.epoch >= self.epochs.get(job_id, 0), "I4"
            self.epochs[job_id] = row.epoch
            if row.state in TERMINAL:
                assert self.ended.setdefault(job_id, row.state) == row.state, "I6"
            else:
                assert job_id not in self.ended, "I6"
        assert sum(t.devices["cpus"] for t in tries if t.state != "ended") <= 2, "I20"
        for tried in tries:
            assert chunks.get((tried.job_id, tried.epoch), 0) <= tried.acked_through, "I9"
        for key, acked in self.acked.items():
            assert self.attempt(key[0]).acked_through == acked, "I12"

    def replay(self, row: Any, log: list[Any]) -> None:
        assert [e.seq for e in log] == list(range(1, len(log) + 1)), "I3: gapless"
        state, epoch = None, 0
        for event in log:
            assert event.epoch >= epoch, "I4"
            epoch = event.epoch
            if event.type == "state":
                assert event.data.get("from") == state, "I3"
                assert state is None or event.data["to"] in TRANSITIONS[state], "I3"
                state = event.data["to"]
        assert (state, len(log)) == (row.state, row.last_event), "I3"
        assert row.state not in TERMINAL or log[-1].type == "end" or log[-1].type == "notice"

    def teardown(self) -> None:
        """L1: on a healthy node every job ends."""
        try:
            unfinished = [j for j in self.accepted if self.row(j).state not in TERMINAL]
            for _ in range(200):
                waiting = [j for j in self.accepted if self.row(j).state not in TERMINAL]
                if not waiting:
                    assert not [j for j in unfinished if self.row(j).reason == "node_lost"], "L1: the node was never lost"
                    return
                for job_id in waiting:
                    if self.row(job_id).state in ("paused", "pausing"):
                        self.db.write_now(lambda s, j=job_id: jobs.resume(s, WHO, j).state)  # type: ignore[misc]
                self.place()
                self.claim_all(dies=False)
                for key in sorted(self.held):
                    if key in self.held:
                        self.finish(sorted(self.held).index(key), "completed", 9)
                self.time_passes(70)
                self.time_passes(400)
            raise AssertionError("L1: a job neither ends nor moves")
        finally:
            self.db.close()
            shutil.rmtree(self.home, ignore_errors=True)


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(
    max_examples=int(os.environ.get("STOKER_PROTOCOL_EXAMPLES", "12")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,
    phases=(Phase.generate,) if os.environ.get("STOKER_MUTANT") else tuple(Phase),
)
