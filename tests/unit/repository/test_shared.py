"""What processes of a test run share: started once, and ended after its last user, also one that was killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.stack import ROOT, until

USER = """
import json, sys
from pathlib import Path
from tests.support.shared import shared
print(json.dumps(shared(Path(sys.argv[1]), "thing", "tests.unit.repository.test_shared:begun", "blue")), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def begun(folder: Path, color: str) -> Iterator[dict[str, Any]]:
    """What is shared here: a process, and a file that says when it ends."""
    yield {"pid": os.getpid(), "color": color}
    folder.with_suffix(".ended").write_text("ended")


@contextlib.contextmanager
def user(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """A process that uses it until its input ends, and what it was given."""
    command, pipe = [sys.executable, "-c", USER, str(folder)], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())


def test_two_processes_share_one_and_it_ends_after_the_last_of_them(tmp_path: Path) -> None:
    ended = tmp_path / "thing.ended"
    with user(tmp_path) as (first, given):
        with user(tmp_path) as (_, same):
            assert same == given
            assert given["color"] == "blue"
        os.kill(given["pid"], 0)
        assert not ended.exists()
        first.send_signal(signal.SIGKILL)
    until(ended.exists, timeout=30, what="ended once its last user was killed")
    with user(tmp_path) as (_, another):
        assert another["pid"] != given["pid"], "who comes after the end starts another"
