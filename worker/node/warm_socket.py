"""Where the warm interpreter listens, and the lines that are spoken there: one JSON object each way."""

import json
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from worker.settings import WorkerSettings

MAX_LINE = 4096


class Ask(BaseModel):
    """attach: keep the interpreter alive while this connection is open; launch: fork an agent; quit: leave."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    op: Literal["attach", "launch", "quit"]
    attempt_id: str = ""
    epoch: int = 0


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    ok: bool
    fingerprint: str = ""
    pid: int = 0
    """Of the agent, after launch; else of the interpreter."""
    error: str = ""


def warm_directory(settings: WorkerSettings) -> Path:
    """Only this user may enter it, so only this user may talk to the socket in it."""
    directory = settings.state_dir / "warm"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    return directory


@contextmanager
def short_address(directory: Path) -> Iterator[str]:
    """A path to the socket that fits in 108 bytes however deep the directory is."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/socket"
    finally:
        os.close(fd)


def peer_user(connection: socket.socket) -> int:
    """User id of the process at the other end."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(user)


def parse_ask(line: bytes) -> Ask | None:
    """None for what is not a request."""
    try:
        return Ask.model_validate_json(line)
    except ValidationError:
        return None


class WarmConnection:
    """A worker's side of one connection. Raises OSError when there is no warm interpreter, or it does not answer in time."""

    def __init__(self, settings: WorkerSettings, timeout: float = 5.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            with short_address(warm_directory(settings)) as address:
                self._socket.connect(address)
        except OSError:
            self._socket.close()
            raise

    def ask(self, op: Literal["attach", "launch", "quit"], **fields: Any) -> Answer:
        """Raises OSError when the other end has gone."""
        self._socket.sendall(json.dumps({"op": op, **fields}).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n"):
            piece = self._socket.recv(MAX_LINE)
            if not piece:
                raise ConnectionResetError("the warm interpreter has gone")
            line += piece
        return Answer.model_validate_json(line)

    def open(self) -> bool:
        """Whether the other end is still there."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)  # Nothing is ever sent unasked, so that anything to read is the end.

    def close(self) -> None:
        self._socket.close()
