"""The installation that tests share which neither end its parts nor drain its workers: one for all processes of a run."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.stack import USER, Stack


@contextmanager
def kept(folder: Path) -> Iterator[dict[str, Any]]:
    """For `tests.support.shared`: a server on SQLite, and two workers with room for four ranks each."""
    with running(Stack(folder, f"sqlite:///{folder}/stoker.db", cpus=4)) as stack:
        stack.start_worker("node-2")
        stack.key(USER)
        yield stack.address


@contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    """Started, and in the end stopped."""
    try:
        yield stack.start()
    finally:
        stack.stop()
        _keep_logs(stack.home)


def _keep_logs(home: Path) -> None:
    """Copy the logs of an installation to where CI keeps them, when it says where."""
    if target := os.environ.get("STOKER_TEST_LOGS"):
        subprocess.run(["sh", "-c", f"mkdir -p {target}/{home.name} && cp {home}/*.log {target}/{home.name}/"], check=False)
