"""A write on its way to the writer thread, and who waits for it: a coroutine or a thread."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from sqlmodel import Session

Hook = Callable[[], None]


class Write:
    """One request's work, and what became of it. The writer fills in `value` or `error`, then `settle` tells who waits."""

    __slots__ = ("_done", "_future", "_loop", "error", "item", "shared", "value", "work")

    def __init__(
        self,
        work: Callable[[Session, Sequence[Any]], Sequence[Any]],
        item: Any,
        *,
        shared: bool,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.work, self.item, self.shared = work, item, shared
        self.value: Any = None
        self.error: BaseException | None = None
        self._loop = loop
        self._future: asyncio.Future[Any] | None = loop.create_future() if loop else None
        self._done: threading.Event | None = None if loop else threading.Event()

    def wanted(self) -> bool:
        """Whether somebody still waits: the work of a request that has gone is not begun."""
        return self._future is None or not self._future.cancelled()

    def waiting(self) -> "asyncio.Future[Any]":
        assert self._future is not None
        return self._future

    def result(self) -> Any:
        """Wait in a thread. Raises what the work raised."""
        assert self._done is not None
        self._done.wait()
        if self.error is not None:
            raise self.error
        return self.value

    def fill(self, result: Any) -> None:
        """Take what became of it; an exception is raised to who waits."""
        if isinstance(result, Exception):
            self.error = result
        else:
            self.value = result

    def _tell(self) -> None:
        if self._future is None or self._future.done():
            return
        if self.error is not None:
            self._future.set_exception(
                self.error if bearable(self.error) else RuntimeError(f"the work ended with {self.error!r}")
            )
        else:
            self._future.set_result(self.value)


def bearable(error: BaseException) -> bool:
    """Whether a coroutine may be handed it: a future refuses a StopIteration, and what is no Exception would end the loop."""
    return isinstance(error, Exception) and not isinstance(error, StopIteration)


def settle(group: Sequence[Write]) -> None:
    """Tell everybody who waits. Each event loop is woken once for all of its own, since waking it is what costs."""
    loops: dict[asyncio.AbstractEventLoop, list[Write]] = defaultdict(list)
    for write in group:
        if write._loop is not None:
            loops[write._loop].append(write)
        elif write._done is not None:
            write._done.set()
    for loop, writes in loops.items():
        with suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(_tell_all, writes)


def _tell_all(writes: list[Write]) -> None:
    for write in writes:
        write._tell()
