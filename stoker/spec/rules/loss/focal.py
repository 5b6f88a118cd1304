"""Rules of `loss` for focal."""

from collections.abc import Iterator

from stoker.spec.loss import Focal
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.task import Multilabel


@rule(
    "focal-alpha-of-labels",
    reads=("/loss", "/task"),
    message="alpha {alpha} leaves zeros of a label the weight 1 - alpha, which is below 0",
    hint="set `loss.alpha` between 0 and 1",
)
def alpha_of_labels(case: Case) -> Iterator[Hit]:
    loss = case.spec.loss
    if not isinstance(loss, Focal) or loss.alpha is None or not isinstance(case.spec.task, Multilabel):
        return
    over = [value for value in (loss.alpha if isinstance(loss.alpha, tuple) else (loss.alpha,)) if value > 1]
    if over:
        yield hit("/loss/alpha", alpha=f"{over[0]:g}")


@rule(
    "focal-alpha-zero",
    reads=("/loss", "/task"),
    message="every `loss.alpha` is 0, so nothing would be learned",
    hint="give some class a factor above 0",
)
def alpha_zero(case: Case) -> Iterator[Hit]:
    loss = case.spec.loss
    if not isinstance(loss, Focal) or loss.alpha is None or isinstance(case.spec.task, Multilabel):
        return
    if not any(loss.alpha if isinstance(loss.alpha, tuple) else (loss.alpha,)):
        yield hit("/loss/alpha")
