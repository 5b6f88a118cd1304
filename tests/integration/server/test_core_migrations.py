"""Migrations go up and down on both databases, and end where the models are."""

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from server.db.metadata import metadata
from server.db.migrate import config, engine_of, migrate

pytestmark = pytest.mark.databases("sqlite", "postgresql")


def _differences(url: str) -> list[object]:
    """Between the models and the database, but for the index that SQLite cannot describe."""

    def comparable(item: object, name: str | None, kind: str, reflected: bool, other: object) -> bool:
        return not (kind == "index" and name == "ix_jobs_pending")

    with engine_of(url).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_object": comparable})
        return list(compare_metadata(context, metadata))


def test_head_is_what_the_models_say(database_url: str) -> None:
    migrate(database_url)
    assert _differences(database_url) == []
    with engine_of(database_url).connect() as connection:
        catalogue = "sqlite_master WHERE name" if connection.dialect.name == "sqlite" else "pg_indexes WHERE indexname"
        assert connection.scalar(text(f"SELECT count(*) FROM {catalogue} = 'ix_jobs_pending'")) == 1


def test_a_column_that_no_migration_made_is_noticed(database_url: str) -> None:
    migrate(database_url)
    with engine_of(database_url).begin() as connection:
        connection.execute(text("ALTER TABLE jobs ADD COLUMN stray INTEGER"))
    assert _differences(database_url)


def test_down_leaves_nothing_and_up_again_works(database_url: str) -> None:
    migrate(database_url)
    with engine_of(database_url).begin() as connection:
        command.downgrade(config(connection), "base")
    with engine_of(database_url).connect() as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
    migrate(database_url)
    assert _differences(database_url) == []


def test_migrating_twice_changes_nothing(database_url: str) -> None:
    migrate(database_url)
    migrate(database_url)
    assert _differences(database_url) == []


def test_a_newer_database_is_refused(database_url: str) -> None:
    migrate(database_url)
    with engine_of(database_url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'from-the-future'"))
    with pytest.raises(ValueError, match="newer server"):
        migrate(database_url)
