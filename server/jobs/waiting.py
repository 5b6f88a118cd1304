"""Long-polling: answer when a job has ended."""

import time
from collections.abc import Callable

from sqlmodel import Session

from server.deps import Runtime
from server.jobs.rows import WholeJobRow
from stoker.status import TERMINAL


async def until_terminal(
    runtime: Runtime, row: WholeJobRow, seconds: float, read: Callable[[Session], WholeJobRow]
) -> WholeJobRow:
    """The job's row once it has ended, or as it is when the seconds are over or the server stops."""
    deadline = time.monotonic() + seconds
    poll = min(1.0, runtime.settings.timers.report)
    with runtime.hub.watch(row.id) as watch:
        row = await runtime.db.read(read)
        while row.state not in TERMINAL and not runtime.hub.closing.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            await watch.wait(min(left, poll))
            row = await runtime.db.read(read)
    return row
