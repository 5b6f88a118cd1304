"""Files that belong to a job's results, beside its checkpoints."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stoker.events import Artifact
from worker.trainer.runtime.journal import Journal


@dataclass(frozen=True)
class ArtifactWriter:
    """Where results are put. Only the first rank's are kept; a later file of the same name takes the place of the earlier."""

    home: Path
    journal: Journal
    is_lead: bool

    def path(self, name: str) -> Path:
        """Where a file of this name is to be written; its folder is there."""
        path = self.home / "artifacts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def keep(self, name: str, write: Callable[[Path], object]) -> None:
        """A file of this name, made by `write`; on other ranks nothing happens. Raises OSError when the disk does not take it."""
        if self.is_lead:
            write(self.path(name))
            self.tell(name)

    def text(self, name: str, text: str) -> None:
        """A file of this name that holds a text."""
        self.keep(name, lambda path: path.write_text(text, encoding="utf-8"))

    def data(self, name: str, data: bytes) -> None:
        """A file of this name that holds these bytes."""
        self.keep(name, lambda path: path.write_bytes(data))

    def tell(self, name: str) -> None:
        """A file that was written to its `path` is whole."""
        self.journal.write(Artifact(name=name, path=(Path("artifacts") / name).as_posix()))
