"""Processes named so that a recycled pid is never mistaken for the one that was meant (proc(5), pidfd_open(2))."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class ProcessId:
    pid: int
    start: int
    """Clock ticks after boot at which it began."""

    def alive(self) -> bool:
        """Whether this very process runs; a zombie does not."""
        stat = read_stat(self.pid)
        return stat is not None and stat.start == self.start and stat.state not in "ZX"

    def send(self, number: int) -> None:
        """Signals the process, and no other that got its pid. Nothing happens when it is gone."""
        with suppress(ProcessLookupError, PermissionError):
            fd = os.pidfd_open(self.pid)
            try:
                if self.alive():
                    signal.pidfd_send_signal(fd, number)
            finally:
                os.close(fd)


@dataclass(frozen=True)
class Stat:
    """Of /proc/<pid>/stat, what Stoker uses."""

    state: str
    parent: int
    group: int
    session: int
    start: int


def read_stat(pid: int) -> Stat | None:
    """None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command stands in parentheses and may hold anything, parentheses too.
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(fields[0], int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def identify(pid: int) -> ProcessId | None:
    stat = read_stat(pid)
    return ProcessId(pid, stat.start) if stat else None


def myself() -> ProcessId:
    found = identify(os.getpid())
    if found is None:
        raise RuntimeError("/proc does not show this process; Stoker's worker needs Linux with /proc mounted")
    return found


KILLED = 2.0
"""Seconds that the kernel is given to take down what was killed."""


def session_members(session: int) -> tuple[ProcessId, ...]:
    """Running processes of a session, its leader included."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    stats = ((pid, read_stat(pid)) for pid in pids)
    return tuple(ProcessId(pid, s.start) for pid, s in stats if s and s.session == session and s.state not in "ZX")


def kill_session(leader: ProcessId) -> int:
    """SIGKILL to a session leader and to whatever it left behind; answers how many were running, once they are gone.

    A process in an uninterruptible wait may outlast the KILLED seconds this takes at most; it can do nothing any more.
    The kernel does not give a session's id to a new process while a member lives, so when another process now has the
    leader's pid, the session is gone.
    """
    stat = read_stat(leader.pid)
    if stat is not None and stat.start != leader.start:
        return 0
    members = session_members(leader.pid)
    for member in members:
        member.send(signal.SIGKILL)
    until = time.monotonic() + KILLED
    while session_members(leader.pid) and time.monotonic() < until:
        time.sleep(0.005)
    return len(members)


@cache
def boot_id() -> str:
    """Changes when the machine restarts."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
