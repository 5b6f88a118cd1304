"""What is done when a run goes wrong in a way it can be brought back from: it goes back to its newest whole checkpoint."""

from pathlib import Path

from stoker.events import Notice
from stoker.spec.debug import Rollback
from worker.trainer import checkpoint
from worker.trainer.assembly import Run
from worker.trainer.debug import may_roll_back
from worker.trainer.errors import Diverged


def prepare(run: Run) -> None:
    """Before the first step: a run that may have to go back needs a place to go back to."""
    if may_roll_back(run.spec.debug) and run.clock.saved < 0:
        checkpoint.save(run, wait=True)


def recover(run: Run, trouble: Diverged) -> None:
    """Put the run where it can go on. Raises Diverged when the spec asks for no remedy, or they are used up."""
    remedy = trouble.remedy
    if remedy is None:
        raise trouble
    if run.backoff.count >= remedy.max_rollbacks:
        tried = f"{run.backoff.count} rollbacks did not help" if run.backoff.count > 1 else "a rollback did not help"
        raise Diverged(f"{trouble}, and {tried}; lower optimizer.lr or look at the data") from trouble
    checkpoint.settle(run)
    place = checkpoint.find(run.home, run.world, run.journal)
    if place is None:
        raise trouble
    _go_back(run, place, remedy, str(trouble))


def _go_back(run: Run, place: Path, remedy: Rollback, why: str) -> None:
    """The clock goes on, for the time did pass; whatever else happened since the checkpoint is forgotten."""
    failed, count, factor, seconds = (
        run.clock.step,
        run.backoff.count + 1,
        run.backoff.factor * remedy.lr_factor,
        run.control.seconds,
    )
    run.optimizer.state.clear()  # of weights that had none at the checkpoint
    run.judge.weights = {}
    run.log.read(lr=0.0, steps=1, count=1)  # nobody hears what was measured since the last report
    checkpoint.restore(run, place)
    run.control.set_seconds(seconds)
    run.backoff.count, run.backoff.factor = count, factor
    message = f"{why}: back to step {run.clock.step}, and on with {factor:g} x the learning rate"
    data = {"from": failed, "to": run.clock.step, "rollbacks": count, "factor": factor}
    run.journal.write(Notice(level="warning", code="rolled_back", message=message, step=run.clock.step, data=data))
    run.journal.phase("training")
