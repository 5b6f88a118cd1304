"""How Alembic reaches the database: the connection that `server.db.migrate` hands over, or STOKER_DATABASE_URL."""

from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection
from sqlmodel.sql.sqltypes import AutoString

from server.db import JsonValue, UtcTime
from server.db.metadata import metadata


def plain_type(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """Stoker's column types as what they are on disk, so that migrations do not change when the code does."""
    if kind != "type":
        return False
    match item:
        case UtcTime():
            return "sa.BigInteger()"
        case JsonValue():
            return "sa.JSON(none_as_null=True)"
        case AutoString():
            return "sa.String()"
        case _:
            return False


def comparable(item: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
    """Everything but the index that sorts downwards, which SQLite cannot describe; a test looks for it by name."""
    return not (kind == "index" and name == "ix_jobs_pending")


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        render_item=plain_type,
        include_object=comparable,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("offline migrations are not offered: they could not tell what is there")
if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    from server.db.migrate import engine_of
    from server.settings import Settings

    with engine_of(Settings().database).connect() as made:
        run(made)
        made.commit()
