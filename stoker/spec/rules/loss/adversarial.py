"""Rules of `loss` for the losses of a gan."""

from collections.abc import Iterator

from stoker.spec.loss import Wasserstein
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule


@rule(
    "slope-unbounded",
    reads=("/loss", "/regularization/spectral_norm"),
    message="nothing bounds the slope of the discriminator, which the wasserstein distance assumes",
    hint="set `loss.gradient_penalty`, for example 10, or `regularization.spectral_norm` with pattern discriminator.*",
    level="W",
)
def unbounded_slope(case: Case) -> Iterator[Hit]:
    loss = case.spec.loss
    if isinstance(loss, Wasserstein) and loss.gradient_penalty == 0 and case.spec.regularization.spectral_norm is None:
        yield hit("/loss/gradient_penalty")
