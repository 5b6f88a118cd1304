"""What is saved when a run fails of an error in the job: its last whole step, if that is worth keeping."""

import torch

from stoker.events import Notice
from worker.trainer.assembly import Run
from worker.trainer.checkpoint.content import stores_of
from worker.trainer.checkpoint.save import save


def note_updates(run: Run) -> None:
    """Note when the optimizer begins to move the weights: from then to the end of the step they belong to no step."""
    if run.spec.checkpoint.on_exception:
        run.optimizer.register_step_pre_hook(lambda *_: _begun(run))


def _begun(run: Run) -> None:
    run.staging.moved = run.clock.step


def rescue(run: Run) -> None:
    """Save the run as it was after its last whole step, where the spec asks for it. Raises nothing."""
    if not run.spec.checkpoint.on_exception or run.world.size > 1 or run.clock.saved == run.clock.step:
        return
    if run.staging.moved == run.clock.step:
        _say(run, "its last step was cut in the middle")
        return
    try:
        broken = [name for tensors in stores_of(run).values() for name, tensor in tensors.items() if not _finite(tensor)]
        if broken:
            _say(run, f"{broken[0]} holds values that are not finite")
        else:
            save(run, wait=True)
    except Exception as error:  # the run fails for another reason already, which is the one to be told
        _say(run, f"{type(error).__name__}: {error}")


def _finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _say(run: Run, why: str) -> None:
    message = f"step {run.clock.step} was not saved when the run failed: {why}"
    run.journal.write(Notice(level="warning", code="not_rescued", message=message, step=run.clock.step))
