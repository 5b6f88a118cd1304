"""The one way to read and to write: `await db.read(fn)` and `await db.write(fn)`.

Both run `fn(session)` in a thread. Writes of this process share one writer thread that commits for all requests waiting
at that moment (group commit): each runs in its own savepoint, an exception undoes that one alone, and nobody is answered
before the commit that holds his rows is durable. Services take the session and never commit; what must happen after the
commit is registered with `after_commit(session, hook)` and runs in the writer thread (keep it short: set an event, put on a queue).

`await db.write_together(fn, item)` is for the one path where even a savepoint per request is too dear: all items that wait
for the same `fn` are handed to it at once, in one savepoint.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import TimeoutError as Silent
from sqlalchemy.pool import NullPool, QueuePool
from sqlmodel import Session

from server.db import broken
from server.db.base import to_json
from server.db.waiting import Hook, Write, bearable, settle

I = TypeVar("I")  # noqa: E741
T = TypeVar("T")
Together = Callable[[Session, Sequence[I]], Sequence[T | Exception]]

log = logging.getLogger(__name__)

_POSTGRES = {
    "connect_timeout": 5,
    "options": "-c synchronous_commit=on -c statement_timeout=15000",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""A statement, and a network that swallows it, is given up after 15 s."""
_GROUP = 64
"""Requests that share one commit at most."""


def after_commit(session: Session, hook: Hook) -> None:
    """Call the hook once the session's work is durable; never when it is undone."""
    session.info.setdefault("after_commit", []).append(hook)


class Database:
    """Engines and the writer thread of one server process.

    Args:
        url: `sqlite:///path` or `postgresql+psycopg://…`.
        readers: threads that read at the same time.
        patience: seconds that a request waits for its answer; longer than any statement may take.
    """

    def __init__(self, url: str, *, readers: int = 4, patience: float = 20.0) -> None:
        self.url, self.patience = make_url(url), patience
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        self.engine = self._engine("BEGIN IMMEDIATE", 1)
        self.reading = self._engine("BEGIN", readers)
        self.info: dict[str, Any] = {}
        """Copied into `session.info` of every session: what services may need of the server that runs them."""
        self._inbox: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._door = threading.Lock()
        """Held to put a write into the inbox and to close, so that no write comes after the end and waits for ever."""
        self._closed = False
        self._writer = threading.Thread(target=self._write_forever, name="db-writer", daemon=True)
        self._gathering: dict[tuple[asyncio.AbstractEventLoop, Together[Any, Any]], list[Write]] = {}
        """Items that wait for the batch of their work before them to be read."""
        self._gatherers: set[asyncio.Task[None]] = set()
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="db-reader")
        self._writer.start()

    def _engine(self, begin: str, size: int) -> Engine:
        if not self.is_sqlite:
            return create_engine(
                self.url,
                poolclass=QueuePool,
                pool_size=size,
                max_overflow=0,
                pool_timeout=5,
                pool_pre_ping=True,
                json_serializer=to_json,
                connect_args=_POSTGRES,
            )
        engine = create_engine(
            self.url,
            poolclass=NullPool if size == 0 else QueuePool,
            pool_size=size,
            max_overflow=0,
            pool_timeout=30,
            json_serializer=to_json,
            connect_args={"check_same_thread": False, "timeout": 5},
        )

        broken.watch(engine)

        @event.listens_for(engine, "connect")
        def _pragmas(connection: Any, _: Any) -> None:
            connection.isolation_level = None
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
                connection.execute(f"PRAGMA {pragma}").close()

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        return engine

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run in one read transaction."""
        if self._closed:
            raise _closed()
        reading = asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, work)
        return await self._bounded(reading)

    async def read_together(self, work: Together[I, T], item: I) -> T:
        """Hand the item to `work` with all others that wait for it now, in one read; the item's result.

        One batch of a work runs at a time: threads that compute side by side only take the interpreter from each other, and
        what was prepared together is written together. A result that is an exception is raised to that item's caller alone;
        when `work` itself raises, every item is handed to it once more alone.
        """
        loop = asyncio.get_running_loop()
        read, key = Write(work, item, shared=True, loop=loop), (loop, work)
        if (waiting := self._gathering.get(key)) is not None:
            waiting.append(read)
        else:
            self._gathering[key] = [read]
            self._gatherers.add(task := loop.create_task(self._read_gathered(key)))
            task.add_done_callback(self._gatherers.discard)
        result: T = await self._bounded(read.waiting())
        return result

    async def _read_gathered(self, key: tuple[asyncio.AbstractEventLoop, Together[Any, Any]]) -> None:
        try:
            while gathered := self._gathering[key]:
                self._gathering[key] = []
                await self._read_batch(key[1], gathered)
        finally:
            del self._gathering[key]  # at once, so that whoever comes now begins a batch of his own

    async def _read_batch(self, work: Together[Any, Any], gathered: list[Write]) -> None:
        if not (batch := [read for read in gathered if read.wanted()]):
            return
        try:
            results = await self.read(lambda s: work(s, [read.item for read in batch]))
            filled = list(zip(batch, results, strict=True))
        except Exception as error:
            if len(batch) > 1:
                for read in batch:
                    await self._read_batch(work, [read])
                return
            filled = [(batch[0], error)]
        for read, result in filled:
            read.fill(result)
        settle(batch)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run in one durable transaction; returns after the commit."""
        result: T = await self._awaited(lambda session, _: [work(session)], None, shared=False)
        return result

    async def write_together(self, work: Together[I, T], item: I) -> T:
        """Hand the item to `work` with all others that wait for it now; returns the item's result after the commit.

        `work` answers with one result per item, in order; a result that is an exception is raised to that item's caller alone
        and says that the item has written nothing. When `work` itself raises, all it did is undone and every item is handed
        to it once more alone, so that it meets only its own trouble.
        """
        result: T = await self._awaited(work, item, shared=True)
        return result

    def read_now(self, work: Callable[[Session], T]) -> T:
        """`read` for threads."""
        with Session(self.reading, info=dict(self.info)) as session:
            try:
                return work(session)
            except BaseException as error:
                if bearable(error):
                    raise
                raise RuntimeError(f"the work ended with {error!r}") from error

    def write_now(self, work: Callable[[Session], T]) -> T:
        """`write` for threads other than the writer."""
        write = Write(lambda session, _: [work(session)], None, shared=False)
        self._put(write)
        result: T = write.result()
        return result

    async def _awaited(self, work: Together[Any, Any], item: Any, *, shared: bool) -> Any:
        write = Write(work, item, shared=shared, loop=asyncio.get_running_loop())
        self._put(write)
        return await self._bounded(write.waiting())

    def _put(self, write: Write) -> None:
        with self._door:
            if self._closed:
                raise _closed()
            self._inbox.put(write)

    async def _bounded(self, answer: "asyncio.Future[T]") -> T:
        """Raises sqlalchemy's TimeoutError when a database that has fallen silent would hold the request for ever.

        A write that has begun by then may still be stored.
        """
        try:
            async with asyncio.timeout(self.patience):
                return await answer
        except TimeoutError as error:
            raise Silent("no answer from the database") from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and answer.cancelled() and task is not None and not task.cancelling():
                raise _closed() from None  # the read was thrown away, not the request
            raise

    def _write_forever(self) -> None:
        while (first := self._inbox.get()) is not None:
            group = [first]
            while len(group) < _GROUP:
                try:
                    following = self._inbox.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    self._inbox.put(None)
                    break
                group.append(following)
            if wanted := [write for write in group if write.wanted()]:
                self._commit_group(wanted)

    def _commit_group(self, group: list[Write]) -> None:
        hooks: list[Hook] = []
        try:
            with self.engine.connect() as connection, connection.begin():
                for batch in _batches(group):
                    self._run(connection, batch, hooks)
        except BaseException as error:
            for write in group:
                write.error = write.error or error
            settle(group)
            return
        settle(group)
        for hook in hooks:
            try:
                hook()
            except Exception:
                log.exception("after-commit hook failed")

    def _run(self, connection: Connection, batch: list[Write], hooks: list[Hook]) -> None:
        """Run a batch in a savepoint of its session; what fails is undone, and a batch that fails is run one by one."""
        session = Session(bind=connection, join_transaction_mode="create_savepoint", expire_on_commit=False, info=dict(self.info))
        try:
            results = batch[0].work(session, [write.item for write in batch])
            filled = list(zip(batch, results, strict=True))
            session.commit()
        except Exception as error:
            session.close()
            if connection.invalidated:
                raise  # the transaction of the whole group is gone with its connection
            if len(batch) == 1:
                batch[0].error = error
                return
            for write in batch:
                if write.wanted():
                    self._run(connection, [write], hooks)
            return
        session.close()
        for write, result in filled:
            write.fill(result)
        hooks += session.info.get("after_commit", ())

    def close(self) -> None:
        """Do what waits to be written, then end. Reads that have not begun are refused, and so is all that comes later."""
        with self._door:
            self._closed = True
            self._inbox.put(None)
        self._writer.join(timeout=10)
        self._readers.shutdown(wait=True, cancel_futures=True)
        self.engine.dispose()
        self.reading.dispose()


def _closed() -> Silent:
    return Silent("the database is closed")


def _batches(group: list[Write]) -> list[list[Write]]:
    """The writes in their order, those that share their work together where the first of them stands."""
    batches: list[list[Write]] = []
    shared: dict[Together[Any, Any], list[Write]] = {}
    for write in group:
        if write.shared and write.work in shared:
            shared[write.work].append(write)
            continue
        batches.append([write])
        if write.shared:
            shared[write.work] = batches[-1]
    return batches
