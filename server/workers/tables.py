"""The machines that run attempts, as their last heartbeat described them."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column
from sqlmodel import Field

from server.db import JsonValue, Row, UtcTime


class Worker(Row, table=True):
    __tablename__ = "workers"

    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    state: str = "active"
    """active or draining; a worker whose heartbeat is older than the lease is lost, which is derived."""
    boot_id: str
    address: str = ""
    """Where other nodes reach it; a worker without an address takes no part in jobs of several nodes."""
    version: str
    capacity: dict[str, Any] = Field(sa_column=Column(JsonValue, nullable=False))
    warm: bool = False
    load: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JsonValue, nullable=False))
    heartbeat_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
