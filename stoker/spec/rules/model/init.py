"""Rules of `model.init`."""

from collections.abc import Iterator

from stoker.spec.model import CNN, HF, Layers
from stoker.spec.model.init import TorchInit
from stoker.spec.model.layers import Residual
from stoker.spec.model.transformer import Transformer
from stoker.spec.rules._case import Case
from stoker.spec.rules._networks import every
from stoker.spec.rules._rule import Hit, hit, rule


@rule(
    "residual-scaling-needs-residuals",
    reads=("/model",),
    message="`residual_scaling` scales residual branches, and this model has none",
    hint="set none",
)
def scaling_needs_residuals(case: Case) -> Iterator[Hit]:
    for at, model, _ in case.networks:
        if (
            isinstance(model, HF)
            or isinstance(model.init, TorchInit)
            or model.init.residual_scaling == "none"
            or isinstance(model, Transformer)
        ):
            continue
        residual = isinstance(model, CNN) and model.block != "plain"
        layers = every(model.layers, at) if isinstance(model, Layers) else ()
        if not residual and not any(isinstance(layer, Residual) for _, layer in layers):
            yield hit(f"{at}/init/residual_scaling")
