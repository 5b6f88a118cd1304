"""Every table, imported once, for migrations and for tests."""

import server.artifacts.tables
import server.attempts.tables
import server.blobs.tables
import server.checkpoints.tables
import server.datasets.tables
import server.events.tables
import server.jobs.tables
import server.logs.tables
import server.metrics.tables
import server.tokens.tables
import server.workers.tables  # noqa: F401
from server.db.base import Row

metadata = Row.metadata
