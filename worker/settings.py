"""What a worker is told by its environment: where the server is, what it may use, where it keeps its files."""

import re
import socket
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def _host_name() -> str:
    """The machine's name, made to fit a worker's."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).lstrip("._-")[:128] or "worker"


class WorkerSettings(BaseSettings):
    """Each field is STOKER_<NAME> in the environment."""

    model_config = SettingsConfigDict(env_prefix="STOKER_", frozen=True, extra="ignore", env_ignore_empty=True)

    url: str = "http://127.0.0.1:7071"
    """Base URL of the server."""
    key: SecretStr = SecretStr("")
    """API key with the scope `worker`."""
    redis_url: str | None = None
    """Broker; unset, the worker learns of its work from heartbeats alone."""
    state_dir: Path = Path(".stoker")
    """Holds runs/, cache/ and the socket of the warm interpreter."""
    worker_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", default_factory=_host_name)]
    """Unique in the installation; also the name of its queue, `stoker.<name>`."""
    worker_address: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_-]{1,253}$")] | None = None
    """Where other nodes reach this one, an IP address or a name; unset, the address from which it reaches the server."""
    worker_cpus: Annotated[int, Field(ge=0, le=4096)] | None = None
    """CPU slots offered; unset, the cores this process may use."""
    worker_memory_gb: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Memory offered in GiB; unset, the machine's or the container's."""
    worker_tpus: Annotated[int, Field(ge=0, le=64)] | None = None
    """TPUs offered, one to a process; unset, 1 where torch_xla is installed and the machine has a TPU, which is given away whole."""
    worker_cache_gb: Annotated[float, Field(ge=0, le=1e6)] = 20.0
    """Largest size of the node's blob cache in GiB; the least recently used go first."""
    worker_keep_runs: Annotated[int, Field(ge=0, le=10_000)] = 20
    """Workspaces of ended attempts that stay on disk, for their logs."""
    worker_warm: bool = True
    """Whether to keep an interpreter with torch imported, from which runs are forked."""
    worker_warm_linger: Annotated[float, Field(ge=0, le=86_400)] = 15.0
    """Seconds the warm interpreter outlives the worker, so that a restarted worker finds it."""
    trace_launch: bool = False
    """Write the times of a launch's phases to launch-trace.jsonl in the workspace."""

    @field_validator("url")
    @classmethod
    def _http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("STOKER_URL must start with http:// or https://")
        return url.rstrip("/")

    @field_validator("state_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @property
    def runs(self) -> Path:
        return self.state_dir / "runs"

    @property
    def cache(self) -> Path:
        return self.state_dir / "cache"

    @property
    def heard(self) -> Path:
        """Touched with each heartbeat that the server answered."""
        return self.state_dir / "heard"

    @property
    def queue(self) -> str:
        return f"stoker.{self.worker_name}"


def load_settings() -> WorkerSettings:
    """Settings of this process's environment.

    Raises pydantic.ValidationError naming each bad variable.
    """
    return WorkerSettings()
