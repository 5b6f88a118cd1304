"""What is done when a run goes wrong in a way it can be brought back from."""

from worker.trainer.assemble import Run
from worker.trainer.errors import Diverged


def recover(run: Run, trouble: Diverged) -> None:
    """Put the run where it can go on. Raises the trouble when the spec asks for no remedy, or they are used up."""
    raise trouble
