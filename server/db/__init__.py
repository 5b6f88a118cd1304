"""Where rows live: the declarative base, column types, and the one way to read and to write."""

from server.db.base import Encoded, JsonValue, Row, UtcTime, new_id, to_json, utcnow
from server.db.session import Database, after_commit

__all__ = ["Database", "Encoded", "JsonValue", "Row", "UtcTime", "after_commit", "new_id", "to_json", "utcnow"]
