"""Programs that are started and left alone: in a session of their own, with their output in a file."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path


class Detached:
    """A program that outlives the process that started it; while that one lives, it must reap it."""

    def __init__(self, command: Sequence[str], output: Path, environment: Mapping[str, str]) -> None:
        """Starts it with this process's environment and some more, its output appended to a file. Raises OSError."""
        to_file = (os.POSIX_SPAWN_OPEN, 1, os.fspath(output), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        from_nowhere = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        actions = (from_nowhere, to_file, (os.POSIX_SPAWN_DUP2, 1, 2))
        # Descriptors are not inherited: Python opens all of them close-on-exec.
        self.pid = os.posix_spawn(command[0], list(command), {**os.environ, **environment}, file_actions=actions, setsid=True)
        self.code: int | None = None
        """Exit code, or minus a signal's number, once it has ended and was polled."""

    def poll(self) -> int | None:
        """Reaps it if it has ended; answers its code, None while it runs."""
        if self.code is None:
            with suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.code = os.waitstatus_to_exitcode(status)
        return self.code


def close_inherited() -> None:
    """Closes what this program was given beside its standard streams; the first thing a detached program does."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with suppress(OSError):
                os.close(int(name))
