"""Files that belong to a job's results."""

from datetime import datetime

from sqlalchemy import BigInteger, Column
from sqlmodel import Field

from server.db import Row, UtcTime


class Artifact(Row, table=True):
    __tablename__ = "artifacts"

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    name: str = Field(primary_key=True)
    epoch: int
    sha256: str
    bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
