"""Bring a database to this version's schema. Safe to run from several processes and after any crash of itself."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

ROOT = Path(__file__).resolve().parents[2]
_LOCK = 7_310_003


def engine_of(url: str) -> Engine:
    """An engine whose transactions hold schema changes too, on SQLite as on PostgreSQL."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, poolclass=NullPool, connect_args={"connect_timeout": 10})
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, poolclass=NullPool, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _manual(connection, _):  # type: ignore[no-untyped-def]
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL").close()
        connection.execute("PRAGMA synchronous=FULL").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, bound to an open connection."""
    made = Config(str(ROOT / "alembic.ini"))
    made.attributes["connection"] = connection
    return made


def migrate(url: str, target: str = "head") -> None:
    """Upgrade, all or nothing. Raises ValueError when the database is newer than this server."""
    engine = engine_of(url)
    script = ScriptDirectory.from_config(config())
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _LOCK})
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in {s.revision for s in script.walk_revisions()}:
            raise ValueError(f"the database is at revision {current}, which this version does not know; run a newer server")
        if current != script.get_current_head() or target != "head":
            command.upgrade(config(connection), target)
    engine.dispose()
