"""Telling processes apart and ending them: a number alone may be somebody else's by now."""

import contextlib
import fcntl
import os
import signal
import socket
import time
from pathlib import Path

from stoker.cli.stack.files import Process, StackFiles


def birth(pid: int) -> str:
    """When a process began, in the kernel's ticks; "" when that cannot be told."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def is_alive(process: Process) -> bool:
    """Whether that very process still runs; a zombie does not."""
    try:
        state = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return False
    return state[0] != "Z" and state[19] == process.born


def end(process: Process, grace: float) -> None:
    """SIGTERM, then SIGKILL to its group when it is still there after `grace` seconds."""
    if not is_alive(process):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    until = time.monotonic() + grace
    while is_alive(process) and time.monotonic() < until:
        time.sleep(0.02)
    if is_alive(process):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def take_lock(files: StackFiles) -> int | None:
    """The open lock file, held until this process ends, or None while another supervisor holds it."""
    handle = os.open(files.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def is_locked(files: StackFiles) -> bool:
    """Whether a supervisor runs here."""
    handle = take_lock(files)
    if handle is None:
        return True
    os.close(handle)
    return False


def free_port(preferred: int | None, host: str = "127.0.0.1") -> tuple[int, socket.socket]:
    """The preferred port when nothing listens there and no other stack has chosen it, else any free one, and its claim.

    The claim keeps other stacks of this machine away until the server listens: hold it as long as the port is used. Raises OSError.
    """
    for port in ([] if preferred is None else [preferred]) + [0] * 20:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with contextlib.suppress(OSError), socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            number = int(probe.getsockname()[1])
            return number, _claim(number)
    raise OSError(f"no free port on {host}")


def _claim(port: int) -> socket.socket:
    """A name that one process of the machine can have, and loses when it ends. Raises OSError when another has it."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0stoker-port-{port}")
    except OSError:
        claim.close()
        raise
    return claim
