"""A job written by a child that sees memory as it was when it was forked: what the run changes later, it changes for itself.

The child inherits one thread and no sockets, runs no PyTorch, takes no lock that another thread may hold, writes files, says
through a pipe how it went, and leaves without any clean-up. It dies with its parent.
"""

import ctypes
import errno
import gc
import json
import os
import select
import signal
import time
import warnings
from dataclasses import asdict
from functools import partial
from typing import NoReturn

from worker.trainer.staging.job import Entry, Job, Written
from worker.trainer.staging.sheet import Sheet
from worker.trainer.staging.task import deadline

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


class Forked:
    """Raises OSError when there can be no child."""

    def __init__(self, job: Job) -> None:
        ready = Job(job.into, [Entry(entry.path, _in_place(entry.content)) for entry in job.entries], job.present)
        self.deadline, self._answer = deadline(job), b""
        self._end: list[Written] | OSError | None = None
        self._pipe, write = os.pipe()
        parent = os.getpid()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: threads do not come along; none is needed
            try:
                self.pid = os.fork()
            except OSError:
                os.close(self._pipe)
                os.close(write)
                raise
        if self.pid == 0:
            _child(ready, write, parent)
        os.close(write)

    def ended(self) -> bool:
        if self._end is None:
            self._listen(0.0)
        return self._end is not None

    def taken(self) -> None:
        """What the run changes, it changes for itself."""

    def outcome(self) -> list[Written]:
        while self._end is None:
            self._listen(max(0.0, self.deadline - time.monotonic()))
        if isinstance(self._end, OSError):
            raise self._end
        return self._end

    def _listen(self, seconds: float) -> None:
        """Hear what the child has said, waiting no longer than this; past the deadline it is killed."""
        until = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        while poll.poll(max(0.0, until - time.monotonic()) * 1000):
            piece = os.read(self._pipe, 1 << 16)
            if not piece:
                self._reap()
                return
            self._answer += piece
        if time.monotonic() >= self.deadline:
            os.kill(self.pid, signal.SIGKILL)
            self._reap()
            self._end = OSError(errno.ETIMEDOUT, "the process that wrote it did not end")

    def _reap(self) -> None:
        os.close(self._pipe)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        try:
            said = json.loads(self._answer)
        except ValueError:
            how = f"was killed by signal {-status}" if status < 0 else f"ended with {status}"
            self._end = OSError(errno.EIO, f"the process that wrote it {how}")
            return
        if "errno" in said:
            self._end = OSError(said["errno"], said["message"])
        else:
            self._end = [Written(**file) for file in said["files"]]


def _in_place(content: Sheet | bytes) -> Sheet | bytes:
    """With the bytes of each tensor located now: the child must not ask PyTorch for them."""
    if isinstance(content, bytes):
        return content
    return Sheet(content.header, [partial(_itself, body()) for body in content.bodies], content.bytes)


def _itself(view: memoryview) -> memoryview:
    return view


def _child(job: Job, write: int, parent: int) -> NoReturn:
    """Never returns, whatever happens."""
    code = 1
    try:
        gc.disable()
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGINT):  # told to stop, the run waits for what is being written
            signal.signal(number, signal.SIG_IGN)
        if os.getppid() != parent:
            os._exit(1)
        os.closerange(3, write)  # a socket held open here would hide from other ranks that this one died
        most = os.sysconf("SC_OPEN_MAX")
        os.closerange(write + 1, most if most > 0 else 1 << 20)
        try:
            said = json.dumps({"files": [asdict(file) for file in job.run()]})
        except OSError as error:
            said = json.dumps({"errno": error.errno or errno.EIO, "message": error.strerror or str(error)})
        data = said.encode()
        while data:
            data = data[os.write(write, data) :]
        code = 0
    finally:
        os._exit(code)
