"""What penalties and bounds on weights, and what is said of the fit, ask of the rest of the run."""

from collections.abc import Iterator, Sequence

from stoker.spec.distributed import LocalSGD, ParameterServer
from stoker.spec.loss import GaussianNLL
from stoker.spec.model import CNN, GAN, MLP, Layers
from stoker.spec.model.layers import Layer, RecurrentLayer, Residual
from stoker.spec.rules._networks import networks
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.rules.insight import whole_on_each_rank
from stoker.spec.task.multi_task import MultiTask, UncertaintyWeighting

PROXIMAL = ("l1", "elastic_net", "group_lasso")


def proximal_elsewhere(case: Case) -> Iterator[Hit]:
    for name in PROXIMAL if isinstance(case.spec.distributed, ParameterServer) else ():
        penalty = getattr(case.spec.regularization, name)
        if penalty is not None and penalty.proximal:
            yield hit(f"/regularization/{name}/proximal", name=name)


def decay_twice(case: Case) -> Iterator[Hit]:
    if case.spec.regularization.l2 is not None and case.spec.optimizer.weight_decay > 0:
        yield hit("/regularization/l2", decay=case.spec.optimizer.weight_decay)


def bound_of_model(case: Case) -> Iterator[Hit]:
    if case.spec.regularization.spectral_norm is None:
        return
    for _, model, _ in networks(case):
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


def bound_whole(case: Case) -> Iterator[Hit]:
    spread = case.spec.distributed
    if case.spec.regularization.spectral_norm is not None and (not whole_on_each_rank(spread) or isinstance(spread, LocalSGD)):
        yield hit("/regularization/spectral_norm", strategy=spread.strategy)


def bound_average(case: Case) -> Iterator[Hit]:
    spectral = case.spec.regularization.spectral_norm
    rival = isinstance(case.spec.model, GAN) and spectral is not None and (spectral.pattern or "").startswith("discriminator.")
    if spectral is not None and not rival:  # of a gan the generator is averaged, and nothing else
        for name in ("ema", "swa"):
            if getattr(case.spec.training, name) is not None:
                yield hit(f"/training/{name}", name=name)


def bound_narrow(case: Case) -> Iterator[Hit]:
    if case.spec.regularization.spectral_norm is not None and case.spec.precision.pure:
        yield hit("/precision/mode", mode=case.spec.precision.mode)


def fit_unseen(case: Case) -> Iterator[Hit]:
    if case.spec.evaluation.fit_diagnosis is not None and case.spec.data.split.validation == 0:
        yield hit("/evaluation/fit_diagnosis")


def fit_of_density(case: Case) -> Iterator[Hit]:
    task = case.spec.task
    losses = [head.loss for head in task.tasks] if isinstance(task, MultiTask) else [case.spec.loss]
    if case.spec.evaluation.fit_diagnosis is not None and any(isinstance(loss, GaussianNLL) for loss in losses):
        yield hit("/evaluation/fit_diagnosis")


def fit_of_learned_weights(case: Case) -> Iterator[Hit]:
    task = case.spec.task
    learned = isinstance(task, MultiTask) and isinstance(task.weighting, UncertaintyWeighting)
    if case.spec.evaluation.fit_diagnosis is not None and learned:
        yield hit("/evaluation/fit_diagnosis")


BOUND = ("/regularization/spectral_norm",)
FIT = ("/evaluation/fit_diagnosis",)

PENALTY_RULES = (
    Rule(
        "proximal-needs-own-weights", "R", ("/regularization", "/distributed"), proximal_elsewhere,
        "`regularization.{name}.proximal` changes weights after a step, and with parameter_server the servers move them",
        "set proximal: false, or use another strategy",
    ),
    Rule(
        "penalty-and-decay", "W", ("/regularization/l2", "/optimizer/weight_decay"), decay_twice,
        "`regularization.l2` and `optimizer.weight_decay` ({decay}) both pull weights towards zero", "keep one of them",
    ),
    Rule(
        "spectral-norm-model", "R", (*BOUND, "/model"), bound_of_model,
        "spectral_norm divides single matrices of mlp, cnn and layers, and {what}", "remove it, or use another model",
    ),
    Rule(
        "spectral-norm-whole", "R", (*BOUND, "/distributed"), bound_whole,
        "spectral_norm needs whole weights that are the same on every rank, which {strategy} does not give it",
        "use single, ddp or horovod",
    ),
    Rule(
        "spectral-norm-average", "R", (*BOUND, "/training"), bound_average,
        "spectral_norm bounds the weights of the last step, and `training.{name}` judges an average of many", "keep one of them",
    ),
    Rule(
        "spectral-norm-precision", "R", (*BOUND, "/precision/mode"), bound_narrow,
        "spectral_norm finds singular values in 32 bits, and {mode} keeps weights in 16", "use fp32 or a mixed mode",
    ),
    Rule(
        "fit-needs-validation", "R", (*FIT, "/data/split"), fit_unseen,
        "`evaluation.fit_diagnosis` compares with the validation split, and `data.split.validation` is 0",
        "hold out a share, for example 0.1",
    ),
    Rule(
        "fit-of-density", "R", (*FIT, "/loss"), fit_of_density,
        "`evaluation.fit_diagnosis` says what share of a loss is explained, and gaussian_nll has no zero", "use mse, or remove it",
    ),
    Rule(
        "fit-of-learned-weights", "R", (*FIT, "/task"), fit_of_learned_weights,
        "`evaluation.fit_diagnosis` says what share of a loss is explained, and learned weights of tasks leave it no zero",
        "set `task.weighting` to fixed, or remove it",
    ),
)  # fmt: skip
