"""Data sets: immutable versions, each a manifest of blobs with the facts measured at upload."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, UniqueConstraint
from sqlmodel import Field

from server.db import JsonValue, Row, UtcTime


class Dataset(Row, table=True):
    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("project", "name", "version"),)

    id: str = Field(primary_key=True)
    project: str
    name: str
    version: int
    digest: str
    bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    files: list[dict[str, Any]] = Field(sa_column=Column(JsonValue, nullable=False))
    """[{"path", "bytes", "sha256"}] sorted by path."""
    facts: dict[str, Any] = Field(sa_column=Column(JsonValue, nullable=False))
    """stoker.facts.DatasetFacts.content as JSON."""
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
