"""The declarative base, ids that sort by age, and times as integers."""

import json
import os
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Dialect
from sqlalchemy.types import JSON, TypeDecorator
from sqlmodel import SQLModel

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """`prefix_` and 26 characters of Crockford base 32: 48 bits of milliseconds, 80 random bits (ULID), lower case."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    return prefix + "_" + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -5, -5))


def utcnow() -> datetime:
    return datetime.now(UTC)


class UtcTime(TypeDecorator[datetime]):
    """An aware datetime kept as microseconds since 1970, the same on every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime")
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromtimestamp(0, UTC) + value * _MICROSECOND


_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = datetime.resolution


class Encoded(str):
    """A JSON document as text already, for rows that are written with the same value many times."""

    __slots__ = ()


def to_json(value: Any) -> str:
    """JSON text of a column's value."""
    return value if isinstance(value, Encoded) else json.dumps(value, separators=(",", ":"))


class JsonValue(TypeDecorator[Any]):
    """A JSON document; None is SQL NULL."""

    impl = JSON(none_as_null=True)
    cache_ok = True


class Row(SQLModel):
    """Base of every table."""
