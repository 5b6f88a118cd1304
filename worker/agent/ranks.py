"""The processes of one attempt: started together, watched through pidfds, killed as a group."""

import os
import select
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stoker.events import Finished
from worker.agent.clock import now
from worker.agent.spawn import Spawner
from worker.agent.verdict import RankEnd
from worker.host.processes import session_members

_STDERR = 4096


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _dumped(log: Path, before: int) -> bool:
    """Whether faulthandler wrote since: the thread that was interrupted comes last, with the program's first frame at the end."""
    if _size(log) <= before:
        return False
    with log.open("rb") as source:
        source.seek(before)
        said = source.read()
    return b"Current thread" in said and said.endswith(b"\n") and b"<module>" in said.rpartition(b"Current thread")[2]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "?"


@dataclass
class _Rank:
    index: int
    pid: int
    pidfd: int
    code: int | None = None
    order: int = 0
    by_us: bool = False


class Ranks:
    def __init__(self, home: Path) -> None:
        self._home = home
        self._ranks: list[_Rank] = []
        self._ended = 0
        self._killing = False

    def start(self, spawner: Spawner, environments: Sequence[Mapping[str, str]]) -> None:
        """Starts all ranks or none. Raises OSError. No thread may run yet."""
        try:
            for environment in environments:
                index = int(environment["RANK"])
                group = self._ranks[0].pid if self._ranks else 0
                pid = spawner.spawn(self._home, environment, group, self.log(index, "out"), self.log(index, "err"))
                self._ranks.append(_Rank(index, pid, os.pidfd_open(pid)))
        except OSError:
            self.kill()
            self.reap_all()
            raise

    def log(self, index: int, stream: str) -> Path:
        return self._home / f"log-rank{index}.{stream}"

    @property
    def running(self) -> bool:
        return any(rank.code is None for rank in self._ranks)

    @property
    def codes(self) -> list[int]:
        """Exit codes of those that ended."""
        return [rank.code for rank in self._ranks if rank.code is not None]

    def wait(self, timeout: float) -> None:
        """Returns when a rank ends, or after a timeout in seconds; notes how they ended."""
        poll = select.poll()
        for rank in self._ranks:
            if rank.code is None:
                poll.register(rank.pidfd, select.POLLIN)
        poll.poll(timeout * 1000)
        order, self._ended = self._ended, self._ended + 1
        for rank in self._ranks:
            if rank.code is None:
                pid, status = os.waitpid(rank.pid, os.WNOHANG)
                if pid:
                    rank.code, rank.order, rank.by_us = os.waitstatus_to_exitcode(status), order, self._killing
                    os.close(rank.pidfd)

    @property
    def states(self) -> dict[int, str]:
        """The letter of /proc/PID/stat of each rank that runs, by index."""
        return {rank.index: _state(rank.pid) for rank in self._ranks if rank.code is None}

    def dump(self, until: float) -> None:
        """Has each rank write the stack of every thread to its log, and returns when all have, or at a time of `clock.now`.

        A rank that is stopped is woken for it; one that cannot be woken writes nothing.
        """
        logs = {rank.index: self.log(rank.index, "err") for rank in self._ranks if rank.code is None}
        before = {index: _size(log) for index, log in logs.items()}
        for number in (signal.SIGUSR1, signal.SIGCONT):
            for rank in self._ranks:
                if rank.code is None:
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(rank.pidfd, number)
        while now() < until and self.running and not all(_dumped(log, before[index]) for index, log in logs.items()):
            self.wait(0.02)

    def terminate(self) -> None:
        """Asks each rank to stop at a checkpoint."""
        for rank in self._ranks:
            if rank.code is None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(rank.pidfd, signal.SIGTERM)

    def kill(self) -> None:
        """Ends every rank and whatever the ranks started."""
        self._killing = True
        if self.running:
            # Rank 0 names the group; while any member is unreaped or alive, no other group gets the number.
            with suppress(ProcessLookupError):
                os.killpg(self._ranks[0].pid, signal.SIGKILL)
            for rank in self._ranks:
                if rank.code is None:
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(rank.pidfd, signal.SIGKILL)

    def reap_all(self) -> None:
        """Waits until every rank is gone, and ends what is left of their children."""
        while self.running:
            self.wait(1.0)
        if os.getsid(0) == os.getpid():
            for member in session_members(os.getpid()):
                if member.pid != os.getpid():
                    member.send(signal.SIGKILL)

    def ends(self, finished: Mapping[int, Finished]) -> list[RankEnd]:
        """How each rank ended; call it when none runs."""
        return [
            RankEnd(r.index, r.code, r.order, r.by_us, finished.get(r.index), self._stderr(r.index))
            for r in self._ranks
            if r.code is not None
        ]

    def _stderr(self, index: int) -> str:
        try:
            with self.log(index, "err").open("rb") as source:
                source.seek(max(0, os.fstat(source.fileno()).st_size - _STDERR))
                return source.read(_STDERR).decode(errors="replace").strip()
        except FileNotFoundError:
            return ""
