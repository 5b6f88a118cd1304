"""Rules of `regularization`."""

from collections.abc import Iterator, Sequence

from stoker.spec.distributed import LocalSGD, ParameterServer
from stoker.spec.model import CNN, MLP, Layers
from stoker.spec.model.layers import Layer, RecurrentLayer, Residual
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.rules._strategies import whole_on_each_rank

PROXIMAL = ("l1", "elastic_net", "group_lasso")


@rule(
    "proximal-needs-own-weights",
    reads=("/regularization", "/distributed"),
    message="`regularization.{name}.proximal` changes weights after a step, and with parameter_server the servers move them",
    hint="set proximal: false, or use another strategy",
)
def proximal_elsewhere(case: Case) -> Iterator[Hit]:
    for name in PROXIMAL if isinstance(case.spec.distributed, ParameterServer) else ():
        penalty = getattr(case.spec.regularization, name)
        if penalty is not None and penalty.proximal:
            yield hit(f"/regularization/{name}/proximal", name=name)


@rule(
    "penalty-and-decay",
    reads=("/regularization/l2", "/optimizer/weight_decay"),
    message="`regularization.l2` and `optimizer.weight_decay` ({decay}) both pull weights towards zero",
    hint="keep one of them",
    level="W",
)
def decay_twice(case: Case) -> Iterator[Hit]:
    if case.spec.regularization.l2 is not None and case.spec.optimizer.weight_decay > 0:
        yield hit("/regularization/l2", decay=case.spec.optimizer.weight_decay)


@rule(
    "spectral-norm-model",
    reads=("/regularization/spectral_norm", "/model"),
    message="spectral_norm works on the matrices of mlp, cnn and layers, and {what}",
    hint="remove `regularization.spectral_norm`, or use another model",
)
def bound_of_model(case: Case) -> Iterator[Hit]:
    if case.spec.regularization.spectral_norm is None:
        return
    for _, model, _ in case.networks:
        if not isinstance(model, MLP | Layers | CNN):
            yield hit("/regularization/spectral_norm", what=f"model.type is {model.type}")
        elif isinstance(model, Layers) and _recurs(model.layers):
            yield hit("/regularization/spectral_norm", what="a layer is recurrent")
        elif model.sharing:
            yield hit("/regularization/spectral_norm", what="parts of the model share weights")
    if case.spec.initialization.finetune is not None and case.spec.initialization.finetune.adapter is not None:
        yield hit("/regularization/spectral_norm", what="an adapter stands beside each")


def _recurs(layers: Sequence[Layer]) -> bool:
    return any(
        isinstance(layer, RecurrentLayer) or (isinstance(layer, Residual) and _recurs((*layer.layers, *layer.shortcut)))
        for layer in layers
    )


@rule(
    "spectral-norm-whole",
    reads=("/regularization/spectral_norm", "/distributed"),
    message="spectral_norm needs whole weights that are the same on every rank, which {strategy} does not give it",
    hint="use single, ddp or horovod",
)
def bound_whole(case: Case) -> Iterator[Hit]:
    spread = case.spec.distributed
    if case.spec.regularization.spectral_norm is not None and (not whole_on_each_rank(spread) or isinstance(spread, LocalSGD)):
        yield hit("/regularization/spectral_norm", strategy=spread.strategy)
