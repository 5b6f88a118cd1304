"""Content-addressed bytes: which digests are stored whole."""

from datetime import datetime

from sqlalchemy import BigInteger, Column
from sqlmodel import Field

from server.db import Row, UtcTime


class Blob(Row, table=True):
    __tablename__ = "blobs"

    sha256: str = Field(primary_key=True)
    bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False, index=True))
    """When it was last uploaded or asked for by an uploader; collected a day after nothing names it."""
