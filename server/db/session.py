"""The one way to read and to write: `await db.read(fn)` and `await db.write(fn)`.

Both run `fn(session)` in a thread. Writes of this process share one writer thread that commits for all requests waiting
at that moment (group commit): each runs in its own savepoint, an exception undoes that one alone, and nobody is answered
before the commit that holds his rows is durable. Services take the session and never commit; what must happen after the
commit is registered with `after_commit(session, hook)` and runs in the writer thread (keep it short: set an event, put on a queue).
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool, QueuePool
from sqlmodel import Session

T = TypeVar("T")
Hook = Callable[[], None]
Work = Callable[[Session], Any]

log = logging.getLogger(__name__)

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
    """

    def __init__(self, url: str, *, readers: int = 4) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        self.engine = self._engine("BEGIN IMMEDIATE", 1)
        self.reading = self._engine("BEGIN", readers)
        self.info: dict[str, Any] = {}
        """Copied into `session.info` of every session: what services may need of the server that runs them."""
        self._inbox: queue.SimpleQueue[tuple[Work, Future[Any]] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_forever, name="db-writer", daemon=True)
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
                connect_args={"connect_timeout": 5, "options": "-c synchronous_commit=on -c statement_timeout=15000"},
            )
        engine = create_engine(
            self.url,
            poolclass=NullPool if size == 0 else QueuePool,
            pool_size=size,
            max_overflow=0,
            pool_timeout=30,
            connect_args={"check_same_thread": False, "timeout": 5},
        )

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
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, work)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run in one durable transaction; returns after the commit."""
        return await asyncio.wrap_future(self._submit(work))

    def read_now(self, work: Callable[[Session], T]) -> T:
        """`read` for threads."""
        with Session(self.reading, info=dict(self.info)) as session:
            return work(session)

    def write_now(self, work: Callable[[Session], T]) -> T:
        """`write` for threads other than the writer."""
        return self._submit(work).result()

    def _submit(self, work: Callable[[Session], T]) -> "Future[T]":
        future: Future[T] = Future()
        self._inbox.put((work, future))
        return future

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
            self._commit_group(group)

    def _commit_group(self, group: list[tuple[Work, "Future[Any]"]]) -> None:
        done: list[tuple[Future[Any], Any, list[Hook]]] = []
        try:
            with self.engine.connect() as connection, connection.begin():
                for work, future in group:
                    if future.set_running_or_notify_cancel():
                        self._run_one(connection, work, future, done)
        except BaseException as error:
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            return
        for future, result, hooks in done:
            future.set_result(result)
            for hook in hooks:
                try:
                    hook()
                except Exception:
                    log.exception("after-commit hook failed")

    def _run_one(
        self, connection: Connection, work: Work, future: "Future[Any]", done: list[tuple["Future[Any]", Any, list[Hook]]]
    ) -> None:
        savepoint = connection.begin_nested()
        session = Session(bind=connection, join_transaction_mode="create_savepoint", expire_on_commit=False, info=dict(self.info))
        try:
            result = work(session)
            session.flush()
            session.commit()
        except Exception as error:
            session.close()
            if savepoint.is_active:
                savepoint.rollback()
            future.set_exception(error)
            return
        session.close()
        savepoint.commit()
        done.append((future, result, session.info.get("after_commit", [])))

    def close(self) -> None:
        self._inbox.put(None)
        self._writer.join(timeout=10)
        self._readers.shutdown(wait=True, cancel_futures=True)
        self.engine.dispose()
        self.reading.dispose()
