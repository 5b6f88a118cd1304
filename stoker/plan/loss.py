"""Losses on paper, as `worker.trainer.loss` computes them: in float32, whatever the format of the outputs."""

from typing import assert_never

from stoker.plan.tape import BF16, FP32, INT64, Tape, Value
from stoker.spec.loss import (
    BinaryCrossEntropy,
    Contested,
    CrossEntropy,
    Focal,
    GaussianNLL,
    Huber,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    NegativeLogLikelihood,
)

FOCUS = 5
"""Numbers per class or label that (1 - p)^gamma x -log p keeps."""


def play_loss(tape: Tape, loss: Loss, outputs: Value, *, labels: bool = False, weighted: bool = False) -> None:
    """`labels`: each output is a label of its own, not one class of several. `weighted`: samples have weights, which travel
    with the targets.
    """
    if weighted:
        _weights(tape, loss, outputs, labels)
    match loss:
        case CrossEntropy():
            _cross_entropy(tape, loss, outputs)
        case NegativeLogLikelihood():
            _chances(tape, outputs)
        case Focal():
            numbers = outputs.size if labels else outputs.size // outputs.shape[-1]
            _differences(tape, outputs) if labels else _chances(tape, outputs)
            tape.keep_more(numbers * ((FOCUS if loss.gamma > 0 else 0) + (loss.alpha is not None)))
        case BinaryCrossEntropy() | MeanSquaredError() | Huber():
            _differences(tape, outputs)
        case MeanAbsoluteError():
            tape.made(outputs.shape, FP32, kept=True)  # the sign of each difference
        case GaussianNLL():
            tape.keep(_wide(tape, outputs))
            tape.keep_more(3 * (outputs.size // 2))  # variance, difference and its square
        case Contested():
            raise TypeError("the loss of a gan is planned with both networks, in stoker.plan.gan")
        case _:
            assert_never(loss)


def _weights(tape: Tape, loss: Loss, outputs: Value, labels: bool) -> None:
    """Targets with the weights beside them are kept whole; a single sum over all samples is not made."""
    match loss:
        case CrossEntropy() | NegativeLogLikelihood():
            tape.keep_more(2)
        case Focal():
            tape.keep_more(1 if labels else 2)
        case BinaryCrossEntropy() | MeanSquaredError() | Huber():
            tape.keep_more(1)
        case MeanAbsoluteError():
            tape.keep_more(outputs.size + 1)
        case GaussianNLL():
            tape.keep_more(outputs.size // 2 + 1)
        case Contested():
            return
        case _:
            assert_never(loss)


def in_chunks(tape: Tape, tokens: int, logits: Value, *, judged: int) -> None:
    """Head and loss were played for all tokens, and are made for so many at a time. `judged`: samples that are evaluated at
    once, whose logits and log-probabilities are there together.
    """
    length, vocabulary = logits.shape[0], logits.shape[-1]
    width = tape.head_input.shape[-1] if tape.head_input is not None else 0
    tape.head_in_parts(tokens / (tape.batch * length), vocabulary * width * tape.word)
    tape.keep_more(length, INT64)
    evaluation = judged * length * vocabulary * (2 * FP32 + (logits.item if logits.item == BF16 else 0))
    tape.high = max(tape.high, evaluation)


def _cross_entropy(tape: Tape, loss: CrossEntropy, outputs: Value) -> None:
    places = outputs.size // outputs.shape[-1]
    logits = outputs if loss.temperature == 1 else tape.made(outputs.shape, outputs.item)
    _chances(tape, logits)
    if loss.label_smoothing > 0:
        tape.keep_more(places, 1)
    if loss.z_loss > 0:
        tape.keep(_wide(tape, logits))
        tape.keep_more(places * (1 if loss.class_weights is None else 2))


def _chances(tape: Tape, outputs: Value) -> None:
    """Log-probabilities and targets, and what the classes of all samples weigh together."""
    tape.made(outputs.shape, FP32, kept=True)
    tape.keep_more(outputs.size // outputs.shape[-1], INT64)
    tape.keep_more(1, per_sample=False)


def _differences(tape: Tape, outputs: Value) -> None:
    """Outputs and targets."""
    tape.keep(_wide(tape, outputs))
    tape.keep_more(outputs.size)


def _wide(tape: Tape, outputs: Value) -> Value:
    return tape.made(outputs.shape, FP32) if outputs.item == BF16 else outputs
