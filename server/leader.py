"""Which of several server processes does the housekeeping: the one that holds an advisory lock of the database."""

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from server.db import Database

_LOCK = 7_310_002


class Leader:
    """SQLite serves one process, which always leads."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._connection: Connection | None = None
        if not db.is_sqlite:
            self._engine = create_engine(
                db.url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 5}
            )

    def leads(self) -> bool:
        """Whether this process leads now; blocking. The lock lives as long as its connection."""
        if self._db.is_sqlite:
            return True
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            else:
                self._connection.execute(text("SELECT 1"))
                return True
            if self._connection.scalar(text("SELECT pg_try_advisory_lock(:n)"), {"n": _LOCK}):
                return True
        except DBAPIError:
            self.close()
            raise
        self.close()
        return False

    def close(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
