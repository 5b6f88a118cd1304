"""Attempts on several nodes against the real services and a real database: random histories of three workers and their agents.

What must hold at every moment (numbers as in the design): a job's live rows are of one attempt and its newest (I7, I8), on as
many different workers as it was given and allowed (I14), a job is live exactly while one of them is (I16), no worker gives more
than it has (I20), and who was refused had ended or was superseded (I11).
"""

import os
import shutil
import tempfile
from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import select

from server.attempts import service as attempts
from server.attempts.store import ATTEMPTS
from server.auth import AttemptPrincipal, Principal
from server.datasets.tables import Dataset
from server.db import Database, utcnow
from server.db.migrate import migrate
from server.errors import Refusal
from server.hub import Hub
from server.jobs import service as jobs
from server.jobs.prepared import Prepared
from server.jobs.store import JOBS
from server.jobs.submit import QueueLimit, insert
from server.queue import Hints
from server.reaper import overdue, reap, shift
from server.scheduler import Scheduler
from server.settings import Settings
from server.telemetry import Telemetry
from server.workers import service as workers
from server.workers.store import WORKERS as ROWS
from stoker.frames import Frame
from stoker.plan import Needs
from stoker.protocol import Claim, Finish, Heartbeat
from stoker.spec import JobSpec
from stoker.status import TERMINAL
from stoker.timers import TimerSettings

LIMIT = QueueLimit(Settings())
TIMERS = TimerSettings()
WHO = Principal("key", "key", None, frozenset({"submit"}))
WORKERS = {"a": 2, "b": 2, "c": 3}
"""CPU slots by name."""
SPEC = JobSpec.model_construct()  # type: ignore[call-arg]  # nobody looks at it
COLUMNS: dict[str, Any] = {
    "project": "default",
    "name": None,
    "kind": "train",
    "priority": 0,
    "labels": {},
    "submitted": "{}",
    "spec": '{"resources":{"max_retries":2},"data":{"source":{"dataset":"toy@1"}},"checkpoint":{}}',
    "origins": {},
    "spec_digest": "d",
    "plan": {},
    "objective": None,
    "progress": {"step": 0},
}
REASONS = ("completed", "rank_lost", "user_error", "preempted", "drained", "peer_lost", "cancelled_by_user", "paused_by_user")
names = st.sampled_from(sorted(WORKERS))


class Nodes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.mkdtemp(prefix="stoker-nodes-")
        migrate(f"sqlite:///{self.home}/s.db")
        self.db = Database(f"sqlite:///{self.home}/s.db", readers=1)
        self.scheduler = Scheduler(self.db, Hub(), Hints(""), TIMERS, Telemetry())
        self.boots = dict.fromkeys(WORKERS, 0)
        self.agents: dict[str, int] = {}
        """Epochs of agents that believe they run, by the id of their row; those that were cut off stay here as zombies."""
        self.seqs: dict[str, int] = {}
        self.epochs: dict[str, int] = {}

    @initialize()
    def data_set(self) -> None:
        row = dict(id="d", project="default", name="toy", version=1, digest="d", bytes=0, files=[], facts={}, created_at=utcnow())
        self.db.write_now(lambda s: s.execute(Dataset.metadata.tables["datasets"].insert().values(row)) and None)

    def beat(self, name: str, **more: Any) -> Any:
        capacity = {"cpus": WORKERS[name], "memory_bytes": 100}
        body = {
            "name": name,
            "boot_id": f"{self.boots[name]}",
            "version": "v",
            "capacity": capacity,
            "address": "10.0.0.1",
        } | more
        return self.db.write_now(lambda s: workers.heartbeat(s, Heartbeat.model_validate(body), TIMERS))

    @rule(nodes=st.integers(1, 3), fewest=st.integers(1, 3), cpus=st.integers(1, 2))
    def submit(self, nodes: int, fewest: int, cpus: int) -> None:
        fewest = min(fewest, nodes)
        needs = Needs(device="cpu", ranks=nodes, cpus=nodes * cpus, memory_bytes=nodes, nodes=nodes, min_nodes=fewest)
        prepared = Prepared(SPEC, COLUMNS | {"needs": needs}, ())
        if len(self.rows(JOBS)) < 4:
            self.db.write_now(lambda s: insert(s, LIMIT, prepared).id)

    @rule()
    def place(self) -> None:
        for name in WORKERS:
            self.beat(name)
        self.db.write_now(self.scheduler.tick)

    @rule(name=names)
    def claim(self, name: str) -> None:
        for given in self.beat(name).assigned:
            asked = Claim(worker=name, epoch=given.epoch, agent_id=f"agent-{given.attempt_id}", pid=1)
            self.db.write_now(lambda s, g=given, a=asked: attempts.claim(s, g.attempt_id, a, b"p" * 32, TIMERS))  # type: ignore[misc]
            self.agents[given.attempt_id], self.seqs[given.attempt_id] = given.epoch, 0

    def act(self, index: int, work: Any) -> None:
        """Let an agent write; who is refused stops."""
        if not self.agents:
            return
        attempt_id = sorted(self.agents)[index % len(self.agents)]
        epoch, row = self.agents[attempt_id], self.row(ATTEMPTS, attempt_id)
        current = row.state != "ended" and self.row(JOBS, row.job_id).epoch == epoch
        try:
            work(attempt_id, AttemptPrincipal(attempt_id, row.job_id, epoch), epoch)
        except Refusal as error:
            if error.code != "stale_attempt" or current:
                raise
            del self.agents[attempt_id]
        else:
            assert current, "I11"

    @rule(index=st.integers(0, 9), kind=st.sampled_from(["prepared", "logs", "started"]))
    def report(self, index: int, kind: str) -> None:
        def work(attempt_id: str, who: AttemptPrincipal, epoch: int) -> None:
            row = self.row(ATTEMPTS, attempt_id)
            head: dict[str, Any] = {"rank": row.node, "stream": "out", "offset": 0}
            if kind == "prepared":
                head = {"address": "10.0.0.1", "port": 21_000 + row.node}
            elif kind == "started":
                if row.node:
                    return
                head = {"step": 0, "total_steps": 9, "parameters": 1, "world_size": 1, "device": "cpu"}
            frame = Frame(self.seqs[attempt_id] + 1, kind, head, b"x" if kind == "logs" else b"")
            for _ in range(2):  # the first answer was lost
                reply = self.db.write_now(lambda s: attempts.report(s, who, epoch, [frame], TIMERS))
            self.seqs[attempt_id] = reply.acked_through
            places = [m.meeting for m in self.rows(ATTEMPTS) if (m.job_id, m.epoch) == (row.job_id, row.epoch)]
            assert (reply.meeting is not None) == (row.nodes > 1 and all(places)), "ranks start when all are prepared"

        if self.agents and not (kind == "started" and self.row(ATTEMPTS, sorted(self.agents)[index % len(self.agents)]).node):
            self.act(index, work)

    @rule(index=st.integers(0, 9), reason=st.sampled_from(REASONS))
    def finish(self, index: int, reason: str) -> None:
        def work(attempt_id: str, who: AttemptPrincipal, epoch: int) -> None:
            said = Finish(epoch=epoch, reason=reason, step=1, last_seq=self.seqs[attempt_id])
            first = self.db.write_now(lambda s: attempts.finish(s, who, said))
            assert self.db.write_now(lambda s: attempts.finish(s, who, said)) == first
            del self.agents[attempt_id]

        self.act(index, work)

    @rule(name=names, what=st.sampled_from(["reboot", "drain", "resume"]))
    def worker(self, name: str, what: str) -> None:
        self.beat(name)
        match what:
            case "reboot":
                self.boots[name] += 1
                self.beat(name)
            case "drain":
                self.db.write_now(lambda s: workers.drain(s, name, TIMERS).id)
            case _:
                self.db.write_now(lambda s: workers.resume(s, name).id)

    @rule(index=st.integers(0, 9), wish=st.sampled_from(["cancel", "pause", "resume"]))
    def steer(self, index: int, wish: str) -> None:
        if known := sorted(r.id for r in self.rows(JOBS)):
            self.ask(known[index % len(known)], wish)

    def ask(self, job_id: str, wish: str) -> None:
        asked: dict[str, Any] = {
            "cancel": lambda s: jobs.cancel(s, WHO, job_id, TIMERS).state,
            "pause": lambda s: jobs.pause(s, WHO, job_id, TIMERS).state,
            "resume": lambda s: jobs.resume(s, WHO, job_id).state,
        }
        try:
            self.db.write_now(asked[wish])
        except Refusal as error:
            if error.code != "illegal_transition":
                raise

    @rule(seconds=st.sampled_from([1, 70, 400]))
    def time_passes(self, seconds: int) -> None:
        self.db.write_now(lambda s: shift(s, timedelta(seconds=-seconds)))
        for attempt_id, job_id in self.db.read_now(lambda s: overdue(s, utcnow(), leases=True, timers=TIMERS)):
            self.db.write_now(lambda s, a=attempt_id, j=job_id: reap(s, a, j, TIMERS, leases=True))  # type: ignore[misc]

    def rows(self, table: Any) -> list[Any]:
        return self.db.read_now(lambda s: list(s.execute(select(table))))

    def row(self, table: Any, key: str) -> Any:
        return self.db.read_now(lambda s: s.execute(select(table).where(table.c.id == key)).one())

    @invariant()
    def everything_holds(self) -> None:
        tries = self.rows(ATTEMPTS)
        for job in self.rows(JOBS):
            mine = [t for t in tries if t.job_id == job.id]
            live = [t for t in mine if t.state != "ended"]
            assert bool(live) == (job.state in ("starting", "running", "finishing", "pausing", "cancelling")), "I16"
            assert all(t.epoch == job.epoch for t in live), "I7, I8"
            assert job.epoch >= self.epochs.get(job.id, 0), "I4"
            self.epochs[job.id] = job.epoch
            for epoch in {t.epoch for t in mine}:
                team = sorted((t for t in mine if t.epoch == epoch), key=lambda t: t.node)
                assert [t.node for t in team] == list(range(team[0].nodes))
                assert len({t.worker_id for t in team}) == len(team), "I14"
                assert job.needs.min_nodes <= len(team) <= job.needs.nodes
                assert len({t.devices["cpus"] for t in team}) == 1
        for worker in self.db.read_now(lambda s: list(s.execute(select(ROWS)))):
            held = [t.devices["cpus"] for t in tries if t.worker_id == worker.id and t.state != "ended"]
            assert sum(held) <= WORKERS[worker.name], "I20"

    def teardown(self) -> None:
        """L1: on healthy nodes every job ends."""
        try:
            for _ in range(60):
                waiting = [r for r in self.rows(JOBS) if r.state not in TERMINAL]
                if not waiting:
                    return
                for job in waiting:
                    if job.state in ("paused", "pausing"):
                        self.ask(job.id, "resume")
                for name in WORKERS:
                    self.worker(name, "resume")
                self.place()
                for name in WORKERS:
                    self.claim(name)
                while self.agents:
                    self.finish(0, "completed")
                self.time_passes(70)
            raise AssertionError([(r.id, r.state, r.reason) for r in waiting])
        finally:
            self.db.close()
            shutil.rmtree(self.home, ignore_errors=True)


TestNodes = Nodes.TestCase
TestNodes.settings = settings(
    max_examples=int(os.environ.get("STOKER_PROTOCOL_EXAMPLES", "12")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,
    phases=(Phase.generate,) if os.environ.get("STOKER_MUTANT") else tuple(Phase),
)
