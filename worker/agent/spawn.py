"""Two ways to start a rank: forked from this interpreter when it is warm, or as a fresh program."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, Protocol

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True)


class Spawner(Protocol):
    def spawn(self, home: Path, environment: Mapping[str, str], group: int, out: Path, err: Path) -> int:
        """Starts one rank in a process group (0: its own, new one) and answers its pid.

        The rank dies with the calling thread's process. Must be called before any thread is started. Raises OSError.
        """


class FreshSpawner:
    """A new interpreter for each rank: slow to start, but it needs nothing that is already running."""

    def __init__(self, command: tuple[str, ...] = (sys.executable, "-m", "worker.trainer")) -> None:
        self._command = command

    def spawn(self, home: Path, environment: Mapping[str, str], group: int, out: Path, err: Path) -> int:
        parent = os.getpid()
        with out.open("ab") as stdout, err.open("ab") as stderr:
            process = subprocess.Popen(
                [*self._command, str(home)],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                process_group=group,
                preexec_fn=lambda: bind_to_parent(parent),  # no thread runs yet
            )
        process.returncode = 0  # Reaped by `Ranks`, which needs the status itself.
        return process.pid


class ForkSpawner:
    """A copy of this interpreter, with all it has imported; `entry` is the trainer's main."""

    def __init__(self, entry: Callable[[Path], int]) -> None:
        self._entry = entry

    def spawn(self, home: Path, environment: Mapping[str, str], group: int, out: Path, err: Path) -> int:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            self._become(home, environment, group, out, err, parent)
        os.setpgid(pid, group or pid)  # In both processes: whichever comes first.
        return pid

    def _become(self, home: Path, environment: Mapping[str, str], group: int, out: Path, err: Path, parent: int) -> NoReturn:
        code = 1
        try:
            os.setpgid(0, group)
            bind_to_parent(parent)
            default_signals()
            redirect(out, err)
            os.environ.clear()
            os.environ.update(environment)
            code = self._entry(home)
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except BaseException:  # Nothing may climb past this frame: below it lies the agent's stack.
            traceback.print_exc()
        finally:
            leave(code)


def bind_to_parent(parent: int) -> None:
    """This process dies when its parent does, and never gains privileges or writes a core file."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.getppid() != parent:  # It died before the request was made.
        os._exit(1)


def default_signals() -> None:
    """Undoes what an agent or a warm interpreter set for itself."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def redirect(out: Path, err: Path) -> None:
    """Standard input from nowhere, output and errors appended to files, line by line."""
    for target, path, flags in ((0, Path(os.devnull), os.O_RDONLY), (1, out, _APPEND), (2, err, _APPEND)):
        fd = os.open(path, flags, 0o600)
        os.dup2(fd, target)
        if fd != target:
            os.close(fd)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # both are TextIOWrapper here


def leave(code: int) -> NoReturn:
    """Ends a forked process at once: exit handlers and destructors belong to the process it was copied from."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)


_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
