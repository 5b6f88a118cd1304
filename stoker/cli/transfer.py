"""Progress of uploads and downloads on stderr: a bar on a terminal, silence elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress as rich_progress

from stoker.cli.failure import Failure
from stoker.cli.terminal import Progress, err, is_live


@contextmanager
def bar(what: str, progress: Progress = "auto") -> Iterator[Callable[[int, int], None] | None]:
    """A callback for bytes done and in all; None where nobody looks. Ctrl-C says that the rest is kept."""
    try:
        if not is_live(progress):
            yield None
            return
        parts = (
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.DownloadColumn(binary_units=True),
            rich_progress.TransferSpeedColumn(),
            rich_progress.TimeRemainingColumn(),
        )
        with rich_progress.Progress(*parts, console=err(), transient=True) as drawn:
            task = drawn.add_task(what, total=None)
            yield lambda done, total: drawn.update(task, completed=done, total=total)
    except KeyboardInterrupt:
        raise Failure(
            "interrupted; the bytes transferred so far are kept", "run the same command again to continue", code=130
        ) from None
