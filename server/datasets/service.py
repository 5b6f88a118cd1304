"""Data sets are immutable versions of manifests; the same files under the same name are the same version."""

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import text
from sqlmodel import Session

from server.blobs import service as blobs
from server.datasets import store
from server.datasets.paths import check_paths
from server.datasets.tables import Dataset
from server.db import new_id, utcnow
from server.errors import not_found, problem
from stoker.errors import Finding
from stoker.facts import ArrayFacts, DatasetFacts, ImageFacts, TableFacts, TextFacts, WeightFacts
from stoker.protocol import BlobFile
from stoker.spec.base import Name
from stoker.text import counted
from stoker.views import DatasetView, FileView

Content = TableFacts | TextFacts | ImageFacts | ArrayFacts | WeightFacts


class UploadedFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    path: Annotated[str, Field(min_length=1, max_length=300)]
    """Name within the data set; pictures: `class/name`."""
    bytes: Annotated[int, Field(ge=0, le=2**53)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class DatasetUpload(BaseModel):
    """A manifest of bytes that were uploaded to /v1/blobs before."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    name: Name
    files: Annotated[list[UploadedFile], Field(min_length=1, max_length=100_000)]
    format: Literal["csv", "parquet", "text", "image_folder", "arrays"] | None = None
    """What the files are meant to be; unset, what they look like: of plain text, .csv and .tsv are tables."""
    delimiter: Literal[",", ";", "\t", "|"] | None = None
    """What separates two cells of CSV; unset, what the header has most of."""


def manifest_of(upload: DatasetUpload) -> list[BlobFile]:
    """The files by name. Raises 422 `file_name_invalid` with every name that is not one."""
    if findings := check_paths([f.path for f in upload.files]):
        raise problem(422, "file_name_invalid", "Some file names cannot be used.", errors=findings)
    return sorted((BlobFile(path=f.path, bytes=f.bytes, sha256=f.sha256) for f in upload.files), key=lambda f: f.path)


def digest_of(files: Sequence[BlobFile]) -> str:
    """SHA-256 of the manifest as compact JSON: [[path, bytes, sha256], …] by path."""
    return hashlib.sha256(json.dumps([[f.path, f.bytes, f.sha256] for f in files], separators=(",", ":")).encode()).hexdigest()


def existing(session: Session, project: str, upload: DatasetUpload, digest: str) -> Dataset | None:
    """The version that these files already are, read as is asked for."""
    for row in store.with_digest(session, project, upload.name, digest):
        format_, delimiter = _read_as(row)
        if upload.format in (None, format_) and upload.delimiter in (None, delimiter):
            return row
    return None


def keep(session: Session, project: str, upload: DatasetUpload) -> None:
    """See that every file's bytes are there and stay. Raises 409 `blobs_missing` with each file to upload first."""
    have = blobs.touch(session, project, sorted({f.sha256 for f in upload.files}))
    missing = [
        Finding(pointer=f"/files/{at}", code="blob-missing", message="Upload these bytes first.", hint=f.sha256)
        for at, f in enumerate(upload.files)
        if f.sha256 not in have
    ]
    if missing:
        raise problem(
            409,
            "blobs_missing",
            f"The bytes of {counted(len(missing), 'file')} are not stored yet; upload them first.",
            errors=missing,
        )


def create(
    session: Session, project: str, upload: DatasetUpload, files: Sequence[BlobFile], content: Content
) -> tuple[Dataset, bool]:
    """The version of these files and whether it is new. Raises 409 `blobs_missing`, 422 `dataset_rejected`."""
    _one_at_a_time(session, project, upload.name)
    digest = digest_of(files)
    if (row := existing(session, project, upload, digest)) is not None:
        return row, False
    newest = store.one(session, project, upload.name, None)
    row = Dataset(
        id=new_id("dst"),
        project=project,
        name=upload.name,
        version=newest.version + 1 if newest else 1,
        digest=digest,
        bytes=sum(f.bytes for f in files),
        files=[f.model_dump() for f in files],
        facts=content.model_dump(mode="json"),
        created_at=utcnow(),
    )
    try:
        blobs.refer(session, project, f"dataset:{row.id}", _distinct(files))
    except blobs.MissingBlob as missing:
        at = next(i for i, f in enumerate(upload.files) if f.sha256 == missing.sha256)
        finding = Finding(pointer=f"/files/{at}/bytes", code="blob-missing", message="No such bytes of this length are stored.")
        raise problem(409, "blobs_missing", "A file is not stored as described.", errors=[finding]) from missing
    session.add(row)
    session.flush()
    return row, True


def _distinct(files: Sequence[BlobFile]) -> list[tuple[str, int]]:
    """(digest, bytes) once each; a digest with two lengths stays twice, so that one of them is found wrong."""
    return sorted({(f.sha256, f.bytes) for f in files})


def _one_at_a_time(session: Session, project: str, name: str) -> None:
    """Two server processes may not number the same version; within one, and on SQLite, writes have one thread."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 7))"), {"name": f"{project}/{name}"})


def _read_as(row: Dataset) -> tuple[str, str | None]:
    """Format and delimiter that the row's facts were measured with."""
    match row.facts["kind"]:
        case "table":
            return row.facts["format"], row.facts.get("delimiter")
        case "images":
            return "image_folder", None
        case kind:
            return kind, None


def parse_ref(ref: str) -> tuple[str, int | None]:
    """`digits@3` → ("digits", 3); `digits` → ("digits", None); what is no version is 0, which none has."""
    name, _, version = ref.partition("@")
    if not version:
        return name, None
    return name, int(version) if version.isascii() and version.isdigit() and len(version) < 10 else 0


def get(session: Session, project: str, ref: str) -> Dataset:
    """Raises 404."""
    row = store.one(session, project, *parse_ref(ref))
    if row is None:
        raise not_found()
    return row


def facts_of(session: Session, project: str, ref: str) -> DatasetFacts:
    """What a data set holds; without a version, the newest. Raises 404."""
    row = get(session, project, ref)
    return DatasetFacts.model_validate(
        {"name": row.name, "version": row.version, "digest": row.digest, "bytes": row.bytes, "content": row.facts}
    )


def files_of(session: Session, project: str, ref: str) -> tuple[BlobFile, ...]:
    """The manifest of a data set. Raises 404."""
    return tuple(BlobFile.model_validate(f) for f in get(session, project, ref).files)


def view(row: Dataset, *, whole: bool = True) -> DatasetView:
    """Lists leave files and facts out."""
    return DatasetView(
        name=row.name,
        version=row.version,
        digest=row.digest,
        bytes=row.bytes,
        created_at=row.created_at,
        files=[FileView.model_validate(f) for f in row.files] if whole else [],
        facts=row.facts if whole else None,
    )
