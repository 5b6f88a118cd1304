"""Content-addressed bytes: which digests are stored whole, who may read them, and what names them."""

from datetime import datetime

from sqlalchemy import BigInteger, Column, Index
from sqlmodel import Field

from server.db import Row, UtcTime


class Blob(Row, table=True):
    __tablename__ = "blobs"

    sha256: str = Field(primary_key=True)
    bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False, index=True))
    """When it was last uploaded or asked for by an uploader; collected a day after nothing names it."""
    doomed_at: datetime | None = Field(default=None, sa_column=Column(UtcTime, index=True))
    """Set when the collector decided to remove it: from then on nobody may name it, and its bytes go before its row does."""


class BlobGrant(Row, table=True):
    """A project that proved it has the bytes, by uploading them. Knowing a digest alone opens nothing."""

    __tablename__ = "blob_grants"
    __table_args__ = (Index("ix_blob_grants_project", "project"),)

    sha256: str = Field(primary_key=True)
    project: str = Field(primary_key=True)


class BlobRef(Row, table=True):
    """A manifest that names a blob and so keeps it."""

    __tablename__ = "blob_refs"
    __table_args__ = (Index("ix_blob_refs_owner", "owner"),)

    sha256: str = Field(primary_key=True)
    owner: str = Field(primary_key=True)
    """`dataset:<id>`, `checkpoint:<id>` or `artifact:<job>/<name>`."""


class BlobUsage(Row, table=True):
    """Bytes of all blobs of a project, moved with its grants: the lock under which its quota is kept."""

    __tablename__ = "blob_usage"

    project: str = Field(primary_key=True)
    bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
