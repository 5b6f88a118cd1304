"""What a workspace says about the agent that owns it: who it is, and whether it came to its end."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from worker.host.processes import ProcessId, boot_id

AGENT = "agent.json"
ENDED = "ended.json"


class AgentRecord(BaseModel):
    """agent.json, written by an agent before it claims."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    attempt_id: str
    epoch: int
    agent_id: str
    pid: int
    start: int
    boot_id: str

    @property
    def process(self) -> ProcessId:
        return ProcessId(self.pid, self.start)

    def alive(self) -> bool:
        return self.boot_id == boot_id() and self.process.alive()


class Token(BaseModel):
    """claim.json: what another process of this node needs to send the rest of a dead agent's spool."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    token: str
    epoch: int


def write_whole(path: Path, text: str, mode: int = 0o600) -> None:
    """The file holds all of the text or what it held before, also after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)


def read_agent(home: Path) -> AgentRecord | None:
    """None when no agent has been here, or its record is damaged."""
    try:
        return AgentRecord.model_validate_json((home / AGENT).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def has_ended(home: Path) -> bool:
    return (home / ENDED).exists()


def mark_ended(home: Path, reason: str) -> None:
    """From now on the workspace is kept for its logs only."""
    write_whole(home / ENDED, json.dumps({"reason": reason}))


def unfinished(runs: Path) -> Iterator[tuple[Path, AgentRecord]]:
    """Workspaces whose agent has not come to its end, dead or alive."""
    for home in sorted(runs.iterdir()) if runs.is_dir() else ():
        if not has_ended(home) and (record := read_agent(home)):
            yield home, record
