"""Where blobs live and how much of them is allowed, from the environment."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from obstore.store import S3Config  # only in its stubs


class BlobSettings(BaseSettings):
    """STOKER_BLOB_… variables; the folder is STOKER_STATE_DIR's unless a URL says otherwise."""

    model_config = SettingsConfigDict(env_prefix="STOKER_BLOB_", frozen=True, populate_by_name=True, extra="ignore")

    state_dir: Annotated[Path, Field(validation_alias=AliasChoices("state_dir", "STOKER_STATE_DIR"))] = Path(".stoker")
    url: str | None = None
    """`file:///folder` or `s3://bucket/prefix`; unset, `blobs` in the state directory."""
    endpoint: str | None = None
    """Of an S3-compatible service that is not AWS: `http://minio:9000`."""
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    max_bytes: Annotated[int, Field(ge=1, validation_alias=AliasChoices("max_bytes", "STOKER_UPLOAD_MAX_BYTES"))] = 1 << 40
    """Bytes of one blob."""
    quota_bytes: Annotated[int, Field(ge=1)] = 1 << 43
    """Bytes of all blobs of one project."""
    reserve_bytes: Annotated[int, Field(ge=0)] = 64 << 20
    """Free space that uploads leave on the disk, for the database."""

    def bucket_config(self) -> "S3Config":
        """What is set of a bucket's settings, as obstore names it."""
        found: S3Config = {}
        if self.endpoint:
            found["endpoint"] = self.endpoint
        if self.region:
            found["region"] = self.region
        if self.access_key_id:
            found["access_key_id"] = self.access_key_id
        if self.secret_access_key:
            found["secret_access_key"] = self.secret_access_key.get_secret_value()
        return found
