"""Starting a stack in the background, asking after it, and stopping it, from another process."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from stoker.cli.failure import Failure
from stoker.cli.stack.child import tail
from stoker.cli.stack.files import Record, StackFiles, read_record
from stoker.cli.stack.process import is_alive, is_locked, take_lock
from stoker.cli.stack.supervisor import START_LIMIT, Options, Supervisor


@dataclass(frozen=True)
class Status:
    running: bool
    record: Record | None

    def lines(self) -> list[str]:
        if not self.running or self.record is None:
            return ["no stack runs here"]
        head = f"{self.record.state} at {self.record.url} (supervisor pid {self.record.pid})"
        rows = [
            f"  {name:<8} {'running' if is_alive(child) else 'down':<8} pid {child.pid}  restarts {child.restarts}"
            for name, child in self.record.children.items()
        ]
        return [head, *rows]


def foreground(files: StackFiles, options: Options, say: Callable[[str], None]) -> None:
    """Run the stack in this process until it is told to stop."""
    lock = take_lock(files)
    if lock is None:
        record = read_record(files)
        where = record.url if record else str(files.root)
        raise Failure(f"a stack already runs here: {where}", "`stoker up --status` shows it, `stoker up --stop` stops it", code=2)
    try:
        asyncio.run(Supervisor(files, options, say).run())
    finally:
        os.close(lock)


def detach(files: StackFiles, arguments: list[str]) -> Record:
    """Start the stack in the background; its record once it is ready.

    Raises Failure with the last lines of its log when it does not come up.
    """
    log = files.log("stack")
    with log.open("ab") as out:
        began = out.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "stoker.cli", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    until = time.monotonic() + START_LIMIT + 5
    while time.monotonic() < until:
        record = read_record(files)
        if record and record.pid == process.pid and record.state == "ready":
            return record
        if process.poll() is not None:
            break
        time.sleep(0.05)
    words = log.read_bytes()[began:].decode(errors="replace").strip()
    raise Failure(words.removeprefix("error: ") or f"the stack did not come up; see {log}\n{tail(log)}", code=process.poll() or 1)


def status(files: StackFiles) -> Status:
    return Status(is_locked(files), read_record(files))


def stop(files: StackFiles, limit: float = 60.0) -> bool:
    """Stop the stack that runs here and wait until it is down; False when none runs.

    Raises Failure when it is still up after `limit` seconds.
    """
    now = status(files)
    if not now.running or now.record is None:
        return False
    os.kill(now.record.pid, signal.SIGTERM)
    until = time.monotonic() + limit
    while is_locked(files):
        if time.monotonic() > until:
            raise Failure(f"the stack (pid {now.record.pid}) is still up after {limit:.0f} s", f"see {files.log('stack')}")
        time.sleep(0.05)
    return True
