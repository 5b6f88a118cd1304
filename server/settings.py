"""What the operator decides, read from STOKER_* environment variables. Refuses what would be unsafe to serve."""

import os
import stat
from functools import cached_property
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from stoker.timers import TimerSettings, timers_from_environment

WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - named to be refused


class Settings(BaseSettings):
    """One server process. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="STOKER_", extra="ignore", frozen=False)

    state_dir: Path = Path(".stoker")
    """Where the pepper, the default database and the default blob store live."""
    database_url: str = ""
    """`sqlite:///path` or `postgresql+psycopg://…`; empty, a SQLite file in the state directory."""
    database_patience: float = Field(default=20.0, gt=0)
    """Seconds that a request waits for the database before it is answered 503; statements are given up after 15."""
    redis_url: str = ""
    """Broker of wake-ups; empty, none: workers find their attempts through their heartbeats."""
    host: str = "127.0.0.1"
    port: int = Field(default=7071, ge=0, le=65535)
    processes: int = Field(default=1, ge=1, le=64)
    """Server processes; more than one needs PostgreSQL."""
    behind_proxy: bool = False
    """A reverse proxy with TLS stands in front; required to listen on every interface."""
    allowed_hosts: str = ""
    """Host names that requests may name, separated by commas, beside the local ones and `host`."""
    public_docs: bool = False
    """Show the OpenAPI document and its page without a key."""
    limit_concurrency: int = Field(default=1000, ge=1)
    """Requests in flight; beyond it 503 `overloaded`."""
    header_timeout: float = Field(default=10.0, gt=0)
    """From the first byte of a request to the end of its headers."""
    body_timeout: float = Field(default=10.0, gt=0)
    """To receive a JSON body; streamed uploads get it for each pause between two chunks."""
    requests_per_second: float = Field(default=2000.0, gt=0)
    """Requests that one key may make in each process, in the long run; beyond it 429 `rate_limited`. Workers have no limit."""
    request_burst: int = Field(default=10_000, ge=1)
    """Requests that a key which was quiet may make at once."""
    max_streams_per_key: int = Field(default=100, ge=1)
    max_queued_jobs: int = Field(default=100_000, ge=1)
    """Jobs of one project that may wait; beyond it 429 `queue_full`."""
    access_log: bool = True
    """Log a line per request, without its query."""
    key_days: int = Field(default=90, ge=1, le=3650)
    """Days a new key is valid unless it says otherwise."""

    @cached_property
    def timers(self) -> TimerSettings:
        return timers_from_environment()

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.state_dir.resolve() / 'stoker.db'}"

    @property
    def hosts(self) -> frozenset[str]:
        named = {h.strip().lower() for h in self.allowed_hosts.split(",") if h.strip()}
        own = set() if self.host in WILDCARDS else {self.host.lower()}
        return frozenset(named | own | {"localhost", "127.0.0.1", "::1"})

    def check(self) -> None:
        """Raises ValueError naming what must change before it is safe to serve."""
        if self.host in WILDCARDS and not self.behind_proxy:
            raise ValueError("refusing to listen on every interface without TLS: put a proxy in front and set --behind-proxy")
        if self.processes > 1 and self.database.startswith("sqlite"):
            raise ValueError("SQLite serves one process; set STOKER_DATABASE_URL to PostgreSQL or STOKER_PROCESSES to 1")
        self.timers.check()
        self.prepare_state_dir()

    def prepare_state_dir(self) -> None:
        """Create the state directory for this user alone."""
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)

    @cached_property
    def pepper(self) -> bytes:
        """32 random bytes that key digests are made with; created on first use, readable by this user alone.

        Raises ValueError when others may read the file or when it is too short.
        """
        path = self.state_dir / "pepper"
        self.prepare_state_dir()
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return _read_pepper(path)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(32))
            file.flush()
            os.fsync(file.fileno())
        return _read_pepper(path)


def _read_pepper(path: Path) -> bytes:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ValueError(f"{path} may be read by others; chmod 600 it and rotate every key")
    pepper = path.read_bytes()
    if len(pepper) < 32:
        raise ValueError(f"{path} holds fewer than 32 bytes")
    return pepper
