"""A checkpoint or artifact frame's header, checked: paths that stay inside, digests, numbers that JSON can hold."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from server.attempts.headers import first_fault
from server.errors import problem
from stoker.document.strict_json import JsonValue

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=-]{0,127}", re.ASCII)


def _inside(path: str) -> str:
    segments = path.split("/")
    if len(segments) > 4 or any(not _SEGMENT.fullmatch(s) or ".." in s for s in segments):
        raise ValueError("not a plain relative path")
    return path


Path = Annotated[str, Field(max_length=300), AfterValidator(_inside)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(allow_inf_nan=False)] | Literal["NaN", "Infinity", "-Infinity"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class ManifestFile(Strict):
    path: Path
    bytes: Size
    sha256: Sha256


class Manifest(Strict):
    """The files of a checkpoint and what was measured at it."""

    step: Annotated[int, Field(ge=0, le=2**31 - 1)]
    metrics: Annotated[dict[Annotated[str, Field(min_length=1, max_length=128)], Number], Field(max_length=1000)] = {}
    final: bool = False
    files: Annotated[list[ManifestFile], Field(min_length=1, max_length=10_000)]


class ArtifactFile(Strict):
    name: Path
    bytes: Size
    sha256: Sha256


_MANIFEST: TypeAdapter[Manifest] = TypeAdapter(Manifest)
_ARTIFACT: TypeAdapter[ArtifactFile] = TypeAdapter(ArtifactFile)


def manifest_of(header: Mapping[str, JsonValue]) -> Manifest:
    """Raises 422 `frame_invalid`."""
    try:
        found = _MANIFEST.validate_python(dict(header))
    except ValidationError as error:
        raise problem(422, "frame_invalid", f"checkpoint frame: {first_fault(error)}") from error
    if len({f.path for f in found.files}) < len(found.files):
        raise problem(422, "frame_invalid", "checkpoint frame: field files names one path twice")
    return found


def artifact_of(header: Mapping[str, JsonValue]) -> ArtifactFile:
    """Raises 422 `frame_invalid`."""
    try:
        return _ARTIFACT.validate_python(dict(header))
    except ValidationError as error:
        raise problem(422, "frame_invalid", f"artifact frame: {first_fault(error)}") from error
