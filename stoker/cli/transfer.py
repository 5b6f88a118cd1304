"""Progress of uploads and downloads on stderr: a bar on a terminal, silence elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from stoker.cli.failure import Failure
from stoker.cli.terminal import err, is_live


@contextmanager
def bar(what: str, progress: str = "auto") -> Iterator[Callable[[int, int], None] | None]:
    """A callback for bytes done and in all; None where nobody looks. Ctrl-C says that the rest is kept."""
    try:
        if progress not in ("auto", "plain", "none"):
            raise Failure(f"unknown progress {progress!r}", "use auto, plain or none", code=2)
        if progress != "auto" or not is_live("auto"):
            yield None
            return
        parts = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*parts, console=err(), transient=True) as drawn:
            task = drawn.add_task(what, total=None)
            yield lambda done, total: drawn.update(task, completed=done, total=total)
    except KeyboardInterrupt:
        raise Failure("interrupted; what has arrived is kept", "run the same command again to go on", code=130) from None
