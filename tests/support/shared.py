"""What all processes of a test run share: started by the first that asks, ended after the last of them, however that ends.

A process of its own, the keeper, starts it and ends it. Each user holds a shared lock on a file until it ends, which the kernel
releases when it is killed too; the keeper waits for the file's exclusive lock.
"""

import fcntl
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 400.0
"""Seconds to start: a server and two workers one after the other, on a busy machine."""


def folder_of_run(factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of all processes of a run: that of each process lies in it."""
    mine = factory.getbasetemp()
    return mine.parent if mine.name.startswith("popen-") else mine


def shared(folder: Path, name: str, start: str, *arguments: str) -> dict[str, Any]:
    """What `start` ("module:function") yields of what it started, called with the folder and the arguments by the first to ask.

    `start` is a context manager whose value is JSON. Raises AssertionError when it did not start.
    """
    with (folder / f"{name}.first").open("ab") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        users = os.open(folder / f"{name}.users", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(users, fcntl.LOCK_SH)  # held until this process ends; waits for a keeper that is ending
        address = folder / f"{name}.json"
        if not address.exists():
            _keep(folder, name, start, arguments)
        return dict(json.loads(address.read_text("utf-8")))


def _keep(folder: Path, name: str, start: str, arguments: tuple[str, ...]) -> None:
    log = folder / f"{name}.log"
    with log.open("ab") as out:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.support.shared", str(folder), name, start, *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    deadline = time.monotonic() + LIMIT
    while not (folder / f"{name}.json").exists():
        assert keeper.poll() is None, log.read_text(errors="replace")[-4000:]
        assert time.monotonic() < deadline, f"{name} did not start in {LIMIT} s: {log}"
        time.sleep(0.02)
    keeper.returncode = 0  # it outlives this process; nobody waits for it


def main(place: str, name: str, start: str, *arguments: str) -> None:
    """Start it, and end it once nobody uses it."""
    folder = Path(place)
    module, _, function = start.partition(":")
    begin = getattr(importlib.import_module(module), function)
    with (folder / f"{name}.users").open("rb+") as users, begin(folder / name, *arguments) as value:
        draft = folder / f"{name}.json.part"
        draft.write_text(json.dumps(value), "utf-8")
        draft.rename(folder / f"{name}.json")
        fcntl.flock(users, fcntl.LOCK_EX)  # until it has ended: who asks meanwhile waits, and starts another
        (folder / f"{name}.json").unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
