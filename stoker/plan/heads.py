"""Several tasks on paper, as `worker.trainer.task.multi_task` builds them: the model's last layer as a head per task, and their losses."""

from stoker.errors import Finding, SpecError
from stoker.plan.loss import play_loss
from stoker.plan.tape import FP32, Tape, Value, Weight
from stoker.spec.loss import Huber, MeanSquaredError
from stoker.spec.task.multi_task import MultiTask, UncertaintyWeighting

SCALARS = 3
"""Kept of each learned weight: the inverse of its variance, the same as the loss is multiplied by it, and the loss."""


def last_layer(tape: Tape) -> set[str]:
    """Names of the weights of the layer played last."""
    place = tape.weights[-1].name.rpartition(".")[0]
    return {weight.name for weight in tape.weights if weight.name.rpartition(".")[0] == place}


def refuse_shared_heads(tape: Tape, last: set[str], shared: bool) -> None:
    """`last`: the layer that becomes heads. Raises SpecError where another name stands for its weights by now."""
    if shared and not last <= {weight.name for weight in tape.weights}:
        message = "the last layer becomes a head for each task, and shares its weights"
        raise SpecError([Finding(pointer="/model/sharing", code="sharing-parts", message=message, hint="share other parts")])


def play_heads(tape: Tape, task: MultiTask, outputs: Value) -> Value:
    """The last layer just played, over all outputs, becomes a head per task; what they say is put side by side."""
    widths, uncertain = task.widths, isinstance(task.weighting, UncertaintyWeighting)
    assert widths is not None, "a resolved spec says how much each head gives"
    whole: list[Weight] = [tape.weights.pop() for _ in range(2 if tape.weights[-1].name.endswith(".bias") else 1)]
    for head, width in zip(task.tasks, widths, strict=True):
        rows = [_part(weight, f"head_{head.name}", width) for weight in reversed(whole)]
        if uncertain:
            name = whole[0].name.rpartition(".")[0]
            rows.append(Weight(f"{name}.log_variance_{head.name}", (1,), whole[0].part, whole[0].copies, tape.word))
        (tape.weights if head.weight > 0 else tape.buffers).extend(rows)
        if head.weight == 0:  # no gradient of it is computed; one of zeros goes back through it
            tape.backward -= 2 * tape.batch * width * whole[-1].shape[1]
    said = sum(widths) + (len(widths) if uncertain else 0)
    return tape.made((said,), FP32 if uncertain and not tape.pure else outputs.item)


def _part(weight: Weight, head: str, width: int) -> Weight:
    place, _, kind = weight.name.rpartition(".")
    return Weight(f"{place}.{head}.{kind}", (width, *weight.shape[1:]), weight.part, weight.copies, weight.item)


def play_losses(tape: Tape, task: MultiTask, outputs: Value) -> None:
    """Each task sees its own columns of outputs and targets; targets lie packed, one column per class or number."""
    assert task.widths is not None
    if outputs.item != FP32:
        outputs = tape.made(outputs.shape, FP32)
    for head, width in zip(task.tasks, task.widths, strict=True):
        if head.weight > 0:
            play_loss(tape, head.minimised, outputs.viewed(width))
    learned = [head for head in task.tasks if head.weight > 0]
    lasting = [head for head in learned if isinstance(head.minimised, MeanSquaredError | Huber)]
    if lasting:  # their targets are views of all of them
        tape.keep_more(len(task.columns) - sum(len(head.columns) for head in lasting))
    if isinstance(task.weighting, UncertaintyWeighting):
        tape.keep_more(SCALARS * len(learned), per_sample=False)
