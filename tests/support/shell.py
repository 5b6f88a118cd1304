"""A user at a shell: `stoker` in a process of its own, in a folder and a home of its own."""

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 90
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Shell:
    """Where the user is and which server the environment names."""

    folder: Path
    url: str
    key: str

    def environment(self, **more: str) -> dict[str, str]:
        strange = ("STOKER_", "GITHUB_", "CI", "NO_COLOR", "LC_", "LANG", "COLUMNS")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(strange)}
        here = {"HOME": str(self.folder), "PYTHONPATH": str(ROOT), "STOKER_URL": self.url, "STOKER_KEY": self.key}
        return clean | here | {"TERM": "xterm-256color", "LANG": "C.UTF-8"} | more

    def done(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """The finished command; it never showed a traceback."""
        command = [sys.executable, "-m", "stoker.cli", *words]
        environment = self.environment(**more)
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=LIMIT)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def out(self, *words: str, code: int = 0, **more: str) -> str:
        """stdout of a command that exits as expected."""
        done = self.done(*words, **more)
        assert done.returncode == code, (words, done.returncode, done.stdout[-1000:], done.stderr[-3000:])
        return done.stdout.strip()

    def refused(self, *words: str, code: int, **more: str) -> str:
        """stderr of a command that exits as expected and puts nothing on stdout."""
        done = self.done(*words, **more)
        assert (done.returncode, done.stdout) == (code, ""), (words, done)
        return done.stderr

    def interrupted(self, *words: str, after: str) -> tuple[int, str]:
        """Exit code and stderr of a command that gets Ctrl-C when its stderr has said `after`."""
        command = [sys.executable, "-u", "-m", "stoker.cli", *words]
        pipe, env = subprocess.PIPE, self.environment()
        with subprocess.Popen(
            command, cwd=self.folder, env=env, stdout=pipe, stderr=pipe, text=True, preexec_fn=_listen
        ) as process:
            assert process.stderr is not None
            watchdog = threading.Timer(LIMIT, process.kill)
            watchdog.start()
            said = ""
            for line in process.stderr:
                said += line
                if after in line:
                    process.send_signal(signal.SIGINT)
                    break
            said += process.stderr.read()
            code = process.wait(LIMIT)
            watchdog.cancel()
        return code, said

    def terminal(self, *words: str, clean: bool = True, **more: str) -> tuple[int, str]:
        """Exit code and all that a terminal of 120 columns was sent, without its escapes when `clean`."""
        main, side = pty.openpty()
        environment = self.environment(COLUMNS="120", **more)
        command = [sys.executable, "-m", "stoker.cli", *words]
        process = subprocess.Popen(command, cwd=self.folder, env=environment, stdin=side, stdout=side, stderr=side)
        os.close(side)
        watchdog = threading.Timer(LIMIT, process.kill)
        watchdog.start()
        text = b"".join(iter(_reader(main), b"")).decode()
        watchdog.cancel()
        os.close(main)
        return process.wait(LIMIT), ESCAPE.sub("", text).replace("\r", "") if clean else text


def _reader(descriptor: int) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return os.read(descriptor, 65536)
        except OSError:  # Linux: EIO once the last process on the terminal has gone
            return b""

    return read


def _listen() -> None:
    """A test run in the background has Ctrl-C ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
