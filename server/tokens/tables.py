"""API keys, stored hashed, and the answers kept for repeated requests."""

from datetime import datetime

from sqlalchemy import Column, Text
from sqlmodel import Field

from server.db import JsonValue, Row, UtcTime


class ApiKey(Row, table=True):
    __tablename__ = "api_keys"

    id: str = Field(primary_key=True)
    prefix: str = Field(unique=True)
    """First eight characters after `stk_`, by which it is looked up."""
    digest: str
    """HMAC-SHA-256 of the whole key with the server's pepper, hex."""
    name: str
    project: str | None = None
    """Null: every project."""
    scopes: list[str] = Field(sa_column=Column(JsonValue, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    expires_at: datetime | None = Field(default=None, sa_column=Column(UtcTime))
    revoked_at: datetime | None = Field(default=None, sa_column=Column(UtcTime))


class IdempotentAnswer(Row, table=True):
    __tablename__ = "idempotent_answers"

    project: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    request_digest: str
    """SHA-256 of method, path and body."""
    status: int
    headers: dict[str, str] = Field(sa_column=Column(JsonValue, nullable=False))
    body: str = Field(sa_column=Column(Text, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False, index=True))
