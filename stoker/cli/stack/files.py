"""Where a one-machine stack keeps its things. Nothing in here is for other eyes, so all of it is private to the user."""

import json
import os
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StackFiles:
    root: Path
    """The state directory, `.stoker` by default."""

    @classmethod
    def at(cls, directory: Path) -> "StackFiles":
        """Absolute, created, private, and invisible to git."""
        root = directory.expanduser().resolve()
        for path in (root, root / "logs", root / "broker"):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        ignore = root / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        return cls(root)

    @property
    def record(self) -> Path:
        return self.root / "stack.json"

    @property
    def lock(self) -> Path:
        return self.root / "stack.lock"

    @property
    def config(self) -> Path:
        """What clients read: URL and key."""
        return self.root / "config.toml"

    @property
    def worker_key(self) -> Path:
        return self.root / "worker.key"

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"


@dataclass
class Process:
    """A child as it runs now. `born` tells it from a later process of the same number."""

    pid: int
    born: str
    restarts: int = 0


@dataclass
class Record:
    """What the supervisor last knew, for `--status`, `--stop` and the next start."""

    state: str
    """starting, ready, stopping, stopped."""
    pid: int
    host: str
    port: int
    broker_port: int | None
    broker_password: str | None
    worker: str
    children: dict[str, Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        host = "127.0.0.1" if ip_address(self.host).is_unspecified else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def read_record(files: StackFiles) -> Record | None:
    """The last record, or None when there is none that can be read."""
    try:
        data: dict[str, Any] = json.loads(files.record.read_text())
        children = {name: Process(**child) for name, child in data.pop("children").items()}
        return Record(**data, children=children)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_record(files: StackFiles, record: Record) -> None:
    write_private(files.record, json.dumps(asdict(record), indent=1))


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner may read it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(text)
    os.replace(draft, path)
