"""Work that is done for many at once: what is shared, what is not, and that everybody is answered. On both databases."""

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as Silent
from sqlmodel import Session

from server.db import Database, after_commit
from tests.support.postgres import Postgres

pytestmark = pytest.mark.databases("sqlite", "postgresql")

TABLES = (
    "CREATE TABLE owners (id INTEGER PRIMARY KEY)",
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, owner INTEGER REFERENCES owners(id) DEFERRABLE INITIALLY DEFERRED)",
)
"""A note whose owner is missing is refused by the commit, not by the statement."""
PATIENCE = 60.0
"""Seconds after which a test that hangs is broken off."""


class Bad(Exception):
    """An item that cannot be done."""


@dataclass
class Notes:
    """Work that stores numbers and remembers how it was called."""

    bad: frozenset[int] = frozenset()
    """Items that make the work raise."""
    refused: frozenset[int] = frozenset()
    """Items that the work refuses by its result."""
    orphans: frozenset[int] = frozenset()
    """Items whose rows the commit refuses."""
    calls: list[list[int]] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    """Items whose after-commit hook ran."""

    def write(self, session: Session, items: Sequence[int]) -> list[int | Exception]:
        self.calls.append(list(items))
        return [self.one(session, item) for item in items]

    def one(self, session: Session, item: int) -> int | Exception:
        if item in self.refused:
            return Bad(item)
        session.execute(
            text("INSERT INTO notes VALUES (:id, :owner)"), {"id": item, "owner": 0 if item in self.orphans else None}
        )
        after_commit(session, lambda: self.done.append(item))
        if item in self.bad:
            raise Bad(item)
        return item * 10

    def read(self, session: Session, items: Sequence[int]) -> list[int | Exception]:
        self.calls.append(list(items))
        if any(item in self.bad for item in items):
            session.execute(text("SELECT * FROM nowhere"))  # after which PostgreSQL answers nothing more in the transaction
        return [Bad(item) if item in self.refused else item * 10 for item in items]


@dataclass
class Seen:
    """What the database was told, as its driver's events say."""

    commits: int = 0
    savepoints: int = 0

    def watch(self, db: Database) -> "Seen":
        event.listen(db.engine, "commit", lambda _: self._add(commits=1))
        event.listen(db.engine, "savepoint", lambda *_: self._add(savepoints=1))
        return self

    def _add(self, *, commits: int = 0, savepoints: int = 0) -> None:
        self.commits += commits
        self.savepoints += savepoints


def opened(url: str) -> Database:
    made = Database(url, readers=2)
    for statement in TABLES:
        made.write_now(lambda s, statement=statement: s.execute(text(statement)) and None)  # type: ignore[misc]
    return made


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    made = opened(database_url)
    yield made
    made.close()


@contextlib.contextmanager
def busy(run: Callable[[Callable[[Session], Any]], Any]) -> Iterator[threading.Event]:
    """A thread of the database has work until the block ends, or until the event is set."""
    began, go = threading.Event(), threading.Event()

    def wait(_: Session) -> None:
        began.set()
        assert go.wait(PATIENCE)

    thread = threading.Thread(target=run, args=(wait,))
    thread.start()
    try:
        assert began.wait(PATIENCE)
        yield go
    finally:
        go.set()
        thread.join(PATIENCE)


def stored(db: Database) -> list[int]:
    return [row.id for row in db.read_now(lambda s: s.execute(text("SELECT id FROM notes ORDER BY id")).all())]


def hooked(db: Database, notes: Notes) -> list[int]:
    """Items whose hook ran. Hooks run after the answers, so the writer is asked for one thing more."""
    db.write_now(lambda s: None)
    return notes.done


async def waiting(db: Database, count: int) -> None:
    """Until so many writes wait for the writer."""
    async with asyncio.timeout(PATIENCE):
        while db._inbox.qsize() < count:
            await asyncio.sleep(0)


async def arrive(db: Database, work: Any, items: Sequence[int]) -> list[Any]:
    """Answers or exceptions of writes that all wait at one moment."""
    with busy(db.write_now):
        asked = [asyncio.create_task(db.write_together(work, item)) for item in items]
        await waiting(db, len(items))
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*asked, return_exceptions=True)


def test_items_that_wait_share_one_savepoint_and_one_commit(db: Database) -> None:
    notes, seen = Notes(), Seen().watch(db)
    assert asyncio.run(arrive(db, notes.write, range(20))) == [i * 10 for i in range(20)]
    assert notes.calls == [list(range(20))]
    assert seen == Seen(commits=2, savepoints=1), "the other commit is that of the write that kept them waiting"
    assert stored(db) == hooked(db, notes) == list(range(20))


def test_each_work_has_its_own_batch_and_all_share_the_commit(db: Database) -> None:
    notes, others, seen = Notes(), Notes(bad=frozenset({101})), Seen().watch(db)

    async def mixed() -> list[Any]:
        with busy(db.write_now):
            asked: list[asyncio.Task[Any]] = []
            for i in range(3):
                asked.append(asyncio.create_task(db.write_together(notes.write, i)))
                plain: Callable[[Session], Any] = partial(notes.one, item=50 + i)
                asked.append(asyncio.create_task(db.write(plain)))
                asked.append(asyncio.create_task(db.write_together(others.write, 100 + i)))
            await waiting(db, 9)
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(mixed())
    assert answers[:4] + answers[6:] == [0, 500, 1000, 10, 20, 520, 1020]
    assert [answers[4], type(answers[5])] == [510, Bad]
    assert (notes.calls, others.calls) == ([[0, 1, 2]], [[100, 101, 102], [100], [101], [102]])
    assert seen.commits == 2
    assert stored(db) == [0, 1, 2, 50, 51, 52, 100, 102]


def test_a_batch_that_raises_is_run_one_by_one_and_refuses_only_the_culprit(db: Database) -> None:
    notes = Notes(bad=frozenset({3, 7}))
    answers = asyncio.run(arrive(db, notes.write, range(10)))
    assert [i for i, a in enumerate(answers) if isinstance(a, Bad) and a.args == (i,)] == [3, 7]
    good = [i for i in range(10) if i not in notes.bad]
    assert [answers[i] for i in good] == [i * 10 for i in good]
    assert notes.calls == [list(range(10)), *[[i] for i in range(10)]]
    assert stored(db) == good
    assert hooked(db, notes) == good, "a hook runs once for what is stored, and never for what was undone"


def test_a_result_that_is_an_exception_refuses_its_caller_alone(db: Database) -> None:
    notes = Notes(refused=frozenset({0, 5}))
    answers = asyncio.run(arrive(db, notes.write, range(6)))
    assert [type(a) for a in answers] == [Bad, int, int, int, int, Bad]
    assert len(notes.calls) == 1, "nobody is run again for it"
    assert stored(db) == hooked(db, notes) == [1, 2, 3, 4]


def test_a_commit_that_fails_is_told_to_all_who_shared_it(db: Database) -> None:
    notes = Notes(orphans=frozenset({2}), refused=frozenset({4}))
    answers = asyncio.run(arrive(db, notes.write, range(5)))
    assert [type(a) for a in answers] == [IntegrityError] * 4 + [Bad]
    assert (stored(db), hooked(db, notes)) == ([], [])
    assert asyncio.run(arrive(db, notes.write, [0, 1])) == [0, 10], "the writer goes on"


def test_a_hook_that_fails_keeps_nothing_from_the_others(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    ran: list[int] = []

    def work(session: Session, items: Sequence[int]) -> list[int]:
        for item in items:
            after_commit(session, lambda item=item: ran.append(item // (item - 1)))  # type: ignore[misc]
        return list(items)

    with caplog.at_level(logging.CRITICAL + 1, "server.db.session"):
        assert asyncio.run(arrive(db, work, range(4))) == [0, 1, 2, 3]
        db.write_now(lambda s: None)
    assert ran == [0, 2, 1]


@pytest.mark.parametrize("error", [StopIteration(), asyncio.CancelledError(), SystemExit(3)], ids=repr)
def test_strange_exceptions_keep_nobody_waiting_and_end_no_loop(db: Database, error: BaseException) -> None:
    """A future takes no StopIteration, and what is no Exception would end the event loop of whoever waits."""

    def work(session: Session, items: Sequence[int]) -> list[int]:
        if 1 in items:
            raise error
        return list(items)

    for answers in (asyncio.run(arrive(db, work, range(3))), asyncio.run(gathered(db, work, range(3)))):
        assert isinstance(answers[1], RuntimeError)
        assert all(isinstance(a, RuntimeError) or a == i for i, a in enumerate(answers))
    assert asyncio.run(arrive(db, work, [5])) == [5], "the writer goes on"


@pytest.mark.parametrize("results", [[], [1], [1, 2, 3, 4], None], ids=str)
def test_work_that_answers_for_too_few_or_too_many_is_undone(db: Database, results: Any) -> None:
    def write(session: Session, items: Sequence[int]) -> Any:
        session.execute(text("INSERT INTO notes VALUES (:id, NULL)"), {"id": items[0]})
        return results if len(items) > 1 or results != [1] else []

    def read(session: Session, items: Sequence[int]) -> Any:
        return results if len(items) > 1 or results != [1] else []

    answers = asyncio.run(arrive(db, write, [7, 8, 9]))
    assert {type(a) for a in answers} <= {ValueError, TypeError}, answers
    assert stored(db) == []
    answers = asyncio.run(gathered(db, read, [7, 8, 9]))
    assert {type(a) for a in answers} <= {ValueError, TypeError}, answers


def test_who_has_gone_before_his_batch_is_left_out(db: Database) -> None:
    notes = Notes()

    async def some_go() -> list[Any]:
        with busy(db.write_now):
            asked = [asyncio.create_task(db.write_together(notes.write, i)) for i in range(6)]
            await waiting(db, 6)
            for gone in (asked[0], asked[3], asked[5]):
                gone.cancel()
            await asyncio.wait([asked[0], asked[3], asked[5]], timeout=PATIENCE)
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(some_go())
    assert [a for a in answers if not isinstance(a, asyncio.CancelledError)] == [10, 20, 40]
    assert (notes.calls, stored(db), hooked(db, notes)) == ([[1, 2, 4]], [1, 2, 4], [1, 2, 4])


def test_who_goes_while_his_batch_runs_disturbs_nobody_and_is_not_run_again(db: Database) -> None:
    """Whoever has gone by the time the batch has failed is not tried alone; the others are."""
    notes, began, go = Notes(bad=frozenset({0})), threading.Event(), threading.Event()

    def work(session: Session, items: Sequence[int]) -> list[int | Exception]:
        began.set()
        assert go.wait(PATIENCE)
        return notes.write(session, items)

    async def one_goes() -> list[Any]:
        with busy(db.write_now):
            asked = [asyncio.create_task(db.write_together(work, i)) for i in range(4)]
            await waiting(db, 4)
        assert await asyncio.to_thread(began.wait, PATIENCE)
        asked[2].cancel()
        await asyncio.wait([asked[2]], timeout=PATIENCE)
        go.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(one_goes())
    assert [type(a) for a in answers] == [Bad, int, asyncio.CancelledError, int]
    assert notes.calls == [[0, 1, 2, 3], [0], [1], [3]]
    assert stored(db) == hooked(db, notes) == [1, 3]


def test_a_connection_that_is_lost_is_said_to_all_and_the_next_write_has_a_new_one(postgres: Postgres) -> None:
    db = opened(postgres.create_database())
    ends: list[int] = []

    def work(session: Session, items: Sequence[int]) -> list[int]:
        ends.append(len(items))
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return list(items)

    answers = asyncio.run(arrive(db, work, range(3)))
    assert [type(a) for a in answers] == [OperationalError] * 3
    assert ends == [3], "nothing is tried on a connection that is gone"
    assert asyncio.run(arrive(db, Notes().write, [1])) == [10]
    db.close()


def test_closing_does_what_waits_and_refuses_what_comes_after(db: Database) -> None:
    notes = Notes()

    async def closed_meanwhile() -> list[Any]:
        with busy(db.write_now):
            asked = [asyncio.create_task(db.write_together(notes.write, i)) for i in range(200)]
            await waiting(db, 200)
            closing = asyncio.create_task(asyncio.to_thread(db.close))
            async with asyncio.timeout(PATIENCE):
                while not db._closed:
                    await asyncio.sleep(0)
            late = asyncio.create_task(db.write_together(notes.write, 999))
            with pytest.raises(Silent):
                await late
            with pytest.raises(Silent):
                await db.write(lambda s: 1)
            with pytest.raises(Silent):
                await asyncio.to_thread(db.write_now, lambda s: 1)
            for reading in (db.read(lambda s: 1), db.read_together(notes.read, 1)):
                with pytest.raises(Silent):
                    await reading
        answers = await asyncio.gather(*asked)
        await closing
        return answers

    assert asyncio.run(closed_meanwhile()) == [i * 10 for i in range(200)]
    assert [i for call in notes.calls for i in call] == notes.done == list(range(200))
    assert len(notes.calls) == 4, "64 share a commit at most"
    db.close()


def test_a_reader_that_waits_while_the_database_closes_is_told(database_url: str) -> None:
    """The read under way is finished; those that have not begun are refused, whether they wait alone or together."""
    db, notes = Database(database_url, readers=1), Notes()

    async def closed_meanwhile() -> list[Any]:
        with busy(in_pool(db)) as go:
            asked = [asyncio.create_task(db.read_together(notes.read, i)) for i in range(3)]
            asked.append(asyncio.create_task(db.read(lambda s: 1)))
            await asyncio.sleep(0)
            behind = asyncio.create_task(db.read_together(notes.read, 3))
            await asyncio.sleep(0)
            closing = asyncio.create_task(asyncio.to_thread(db.close))
            _, late = await asyncio.wait([*asked, behind], timeout=PATIENCE)
            assert not late, "told at once, not when the slow read is over"
            assert not go.is_set()
        await closing
        return await asyncio.gather(*asked, behind, return_exceptions=True)

    assert [type(a) for a in asyncio.run(closed_meanwhile())] == [Silent] * 5
    assert notes.calls == []


def in_pool(db: Database) -> Callable[[Callable[[Session], Any]], Any]:
    """Run in one of the database's reader threads."""
    return lambda work: db._readers.submit(db.read_now, work).result(PATIENCE)


async def gathered(db: Database, work: Any, items: Sequence[int]) -> list[Any]:
    """Answers or exceptions of reads of which all but the first wait for its batch."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*(db.read_together(work, item) for item in items), return_exceptions=True)


def test_reads_that_wait_are_read_together_and_one_batch_at_a_time(db: Database) -> None:
    notes, running, most = Notes(refused=frozenset({4})), threading.Semaphore(1), []

    def work(session: Session, items: Sequence[int]) -> list[int | Exception]:
        most.append(running.acquire(blocking=False))
        try:
            return notes.read(session, items)
        finally:
            running.release()

    answers = asyncio.run(gathered(db, work, range(10)))
    assert [a for a in answers if not isinstance(a, Bad)] == [i * 10 for i in range(10) if i != 4]
    assert [i for call in notes.calls for i in call] == list(range(10))
    assert len(notes.calls) <= 2
    assert all(most), "two batches of one work at a time"
    assert db._gathering == {}


def test_a_read_that_raises_is_done_one_byone(db: Database) -> None:
    notes = Notes(bad=frozenset({2}), refused=frozenset({5}))
    answers = asyncio.run(gathered(db, notes.read, range(6)))
    assert isinstance(answers[2], DBAPIError)
    assert isinstance(answers[5], Bad)
    assert [answers[i] for i in (0, 1, 3, 4)] == [0, 10, 30, 40]
    assert [2] in notes.calls
    assert db._gathering == {}


def test_a_reader_who_goes_disturbs_nobody(db: Database) -> None:
    notes, began, go = Notes(), threading.Event(), threading.Event()

    def work(session: Session, items: Sequence[int]) -> list[int | Exception]:
        began.set()
        assert go.wait(PATIENCE)
        return notes.read(session, items)

    async def some_go() -> list[Any]:
        first = [asyncio.create_task(db.read_together(work, i)) for i in range(2)]
        assert await asyncio.to_thread(began.wait, PATIENCE)
        behind = [asyncio.create_task(db.read_together(work, i)) for i in range(2, 6)]
        await asyncio.sleep(0)
        for gone in (first[0], behind[0], behind[3]):
            gone.cancel()
        await asyncio.wait([first[0], behind[0], behind[3]], timeout=PATIENCE)
        go.set()
        return await asyncio.gather(*first, *behind, return_exceptions=True)

    answers = asyncio.run(some_go())
    assert [i for i, a in enumerate(answers) if isinstance(a, asyncio.CancelledError)] == [0, 2, 5]
    assert [answers[i] for i in (1, 3, 4)] == [10, 30, 40]
    assert notes.calls == [[0, 1], [3, 4]], "who had gone before the batch began is not in it"


def test_nobody_waits_longer_than_the_patience_however_far_behind(database_url: str) -> None:
    db = Database(database_url, readers=1, patience=0.2)

    async def impatient() -> list[Any]:
        with busy(in_pool(db)):
            asked = [asyncio.create_task(db.read_together(Notes().read, 1)), asyncio.create_task(db.read(lambda s: 1))]
            with busy(db.write_now):
                asked.append(asyncio.create_task(db.write_together(Notes().write, 1)))
                work = Notes().read
                asked += [asyncio.create_task(db.read_together(work, i)) for i in range(3)]
                await asyncio.sleep(0)
                asked.append(asyncio.create_task(db.read_together(work, 3)))
                _, late = await asyncio.wait(asked, timeout=PATIENCE)
                assert not late
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(a) for a in asyncio.run(impatient())] == [Silent] * 7
    db.close()


@pytest.mark.parametrize(("seed", "crowd"), [(0, 60), (1, 60), (2, 2), (3, 2), (4, 3), (5, 5)])
def test_every_late_arrival_is_answered(db: Database, seed: int, crowd: int) -> None:
    """Thousands that come one by one, in heaps, and just when a batch has ended: none is forgotten, none gets another's answer."""
    chance, notes = random.Random(seed), Notes()
    chains = [[chance.choice((0, 0, 0, 1, 1, 2, 5, 20)) for _ in range(1500 // crowd)] for _ in range(crowd)]

    async def chain(number: int, pauses: list[int]) -> int:
        for at, pause in enumerate(pauses):
            for _ in range(pause):
                await asyncio.sleep(0)
            item = number * 1000 + at
            if chance.random() < 0.05:
                await gone(item)
            assert await db.read_together(notes.read, item) == item * 10
        return len(pauses)

    async def gone(item: int) -> None:
        asked = asyncio.create_task(db.read_together(notes.read, -1 - item))
        await asyncio.sleep(0)
        asked.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asked

    async def hammer() -> int:
        async with asyncio.timeout(PATIENCE):
            return sum(await asyncio.gather(*(chain(n, pauses) for n, pauses in enumerate(chains))))

    assert asyncio.run(hammer()) == 1500
    served = [item for call in notes.calls for item in call if item >= 0]
    assert sorted(served) == sorted(n * 1000 + at for n in range(crowd) for at in range(1500 // crowd)), "each was read once"
    assert len(notes.calls) < len(served)
    assert (db._gathering, db._gatherers) == ({}, set())


def test_two_event_loops_share_a_database(db: Database) -> None:
    notes = Notes()

    async def many(first: int) -> list[Any]:
        answers: list[Any] = []
        for at in range(first, first + 300, 10):
            answers += await gathered(db, notes.read, range(at, at + 10))
            answers += await asyncio.gather(*(db.write_together(notes.write, i) for i in range(at, at + 10)))
        return answers

    found: dict[int, list[Any]] = {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: asyncio.run(many(n))})) for n in (0, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    for first in (0, 1000):
        expected = [i * 10 for at in range(first, first + 300, 10) for _ in "rw" for i in range(at, at + 10)]
        assert found[first] == expected
    assert stored(db) == sorted(hooked(db, notes)) == [*range(300), *range(1000, 1300)]
