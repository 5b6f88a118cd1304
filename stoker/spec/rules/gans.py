"""What two networks with opposite aims ask of each other and of the rest of the run."""

import math
from collections.abc import Iterator

from stoker.spec.data import reads_text
from stoker.spec.distributed import DDP, Single
from stoker.spec.evaluation import FrechetDistance
from stoker.spec.initialization import Cold
from stoker.spec.loss import Wasserstein
from stoker.spec.model import CNN, GAN, Layers
from stoker.spec.model.layers import AttentionLayer, RecurrentLayer
from stoker.spec.model.shapes import infer, written
from stoker.spec.rules._networks import networks
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.rules.batches import batch_norm_of
from stoker.spec.rules.lengths import RUN_READS, total_steps
from stoker.spec.rules.stacks import every, misfit_of
from stoker.spec.schedule import Cyclic, OneCycle
from stoker.spec.task import Generation

MOST_COVARIANCES = 1024
"""Numbers of a sample whose covariances, each with each, are worth their memory: 8 MiB."""


def strategy(case: Case) -> Iterator[Hit]:
    how = case.spec.distributed
    if not isinstance(case.spec.model, GAN) or isinstance(how, Single):
        return
    if not isinstance(how, DDP):
        yield hit("/distributed/strategy", ("single", "ddp"), what=f"strategy {how.strategy}")
        return
    for key in ("tensor_parallel", "context_parallel", "pipeline_parallel", "communication_hook"):
        if getattr(how, key) is not None:
            yield hit(f"/distributed/{key}", what=key)


def useless(case: Case) -> Iterator[Hit]:
    """Families that one model has and two do not."""
    if not isinstance(case.spec.model, GAN):
        return
    spec, start, schedule = case.spec, case.spec.initialization.start, case.spec.schedule
    refused = {
        "/training/tbptt": spec.training.tbptt is not None,
        "/training/distillation": spec.training.distillation is not None,
        "/training/adversarial": spec.training.adversarial is not None,
        "/training/dynamic_batch": spec.training.dynamic_batch is not None,
        "/initialization/finetune": spec.initialization.finetune is not None,
        "/initialization/start/reset_head": not isinstance(start, Cold) and start.reset_head,
        "/interpretability": spec.interpretability is not None,
        "/evaluation/fit_diagnosis": spec.evaluation.fit_diagnosis is not None,
        "/evaluation/sparsity_report": spec.evaluation.sparsity_report is not None,
        "/debug/probes": bool(spec.debug.probes),
        "/data/sample_weight_column": spec.data.sample_weight_column is not None,
        "/schedule/cycle_momentum": isinstance(schedule, Cyclic | OneCycle) and schedule.cycle_momentum,
    }
    for pointer, asked in refused.items():
        if asked:
            yield hit(pointer, path=pointer[1:].replace("/", "."))


def narrow(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.model, GAN) and case.spec.precision.pure:
        yield hit("/precision/mode", mode=case.spec.precision.mode)


def on_tpu(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.model, GAN) and case.spec.resources.device == "tpu":
        yield hit("/resources/device", ("auto", "cpu", "cuda"))


def of_text(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.task, Generation) and reads_text(case.spec.data.source):
        yield hit("/data/source")


def preset_inside(case: Case) -> Iterator[Hit]:
    for at, model, _ in networks(case) if isinstance(case.spec.model, GAN) else ():
        if isinstance(model, CNN) and model.preset is not None:
            yield hit(f"{at}/preset")


def generator_ends(case: Case) -> Iterator[Hit]:
    """In as many numbers as a sample has."""
    outputs = case.problem.outputs
    if not isinstance(case.spec.model, GAN) or not isinstance(case.spec.task, Generation) or outputs is None:
        return
    generator = next(iter(networks(case)))
    if isinstance(generator.model, Layers) and generator.reads is not None and misfit_of(generator) is None:
        layers = generator.model.layers
        form = infer(layers, generator.reads)
        if math.prod(form.shape) != outputs:
            yield hit(f"/model/generator/layers/{len(layers) - 1}", end=written(form.shape), outputs=outputs)


def discriminator_ends(case: Case) -> Iterator[Hit]:
    """In one number."""
    for at, model, reads in networks(case) if isinstance(case.spec.model, GAN) else ():
        if at != "/model/discriminator" or not isinstance(model, Layers) or reads is None:
            continue
        if _fits(case) and (end := infer(model.layers, reads).shape) != (1,):
            yield hit(f"{at}/layers/{len(model.layers) - 1}", end=written(end))


def _fits(case: Case) -> bool:
    return all(misfit_of(network) is None for network in networks(case))


def generator_never_learns(case: Case) -> Iterator[Hit]:
    task, total = case.spec.task, total_steps(case)
    if isinstance(task, Generation) and total is not None and total < task.discriminator_steps:
        yield hit("/task/discriminator_steps", steps=task.discriminator_steps, total=total)


def _penalised(case: Case) -> bool:
    loss = case.spec.loss
    return isinstance(loss, Wasserstein) and loss.gradient_penalty > 0 and isinstance(case.spec.model, GAN)


def penalty_of_batches(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if isinstance(model, GAN) and _penalised(case):
        pointer = batch_norm_of(model.discriminator, "/model/discriminator")
        if pointer is not None:
            yield hit(pointer)


def penalty_of_layers(case: Case) -> Iterator[Hit]:
    """What PyTorch has no second derivative of."""
    model = case.spec.model
    if isinstance(model, GAN) and _penalised(case) and isinstance(model.discriminator, Layers):
        for pointer, layer in every(model.discriminator.layers, "/model/discriminator/layers"):
            if isinstance(layer, AttentionLayer | RecurrentLayer):
                yield hit(pointer, kind=layer.type)


def penalty_in_fp16(case: Case) -> Iterator[Hit]:
    if _penalised(case) and case.spec.precision.mode == "fp16_mixed":
        yield hit("/precision/mode")


def unbounded_slope(case: Case) -> Iterator[Hit]:
    loss = case.spec.loss
    if isinstance(loss, Wasserstein) and loss.gradient_penalty == 0 and case.spec.regularization.spectral_norm is None:
        yield hit("/loss/gradient_penalty")


def many_covariances(case: Case) -> Iterator[Hit]:
    numbers = case.problem.outputs
    for index, metric in enumerate(case.spec.evaluation.metrics or ()):
        if isinstance(metric, FrechetDistance) and numbers is not None and numbers > MOST_COVARIANCES:
            yield hit(f"/evaluation/metrics/{index}", numbers=numbers, most=MOST_COVARIANCES)


PENALTY = ("/loss", "/model")

GAN_RULES = (
    Rule(
        "gan-strategy", "R", ("/model/type", "/distributed"), strategy,
        "the two networks of a gan learn in turn, each whole on every rank, which {what} does not do", "use strategy single, or ddp without it",
    ),
    Rule(
        "gan-without", "R", ("/model/type", "/training", "/initialization", "/interpretability", "/evaluation", "/debug", "/data", "/schedule"), useless,
        "`{path}` is made for one network that answers about its samples, and a gan has two that contest", "remove it",
    ),
    Rule(
        "gan-precision", "R", ("/model/type", "/precision/mode"), narrow,
        "the networks of a gan move in small steps that {mode} would round away", "use fp32 or a mixed mode",
    ),
    Rule("gan-tpu", "R", ("/model/type", "/resources/device"), on_tpu, "a gan is not built for TPUs", "use cpu or cuda"),
    Rule("gan-of-text", "R", ("/task/type", "/data/source"), of_text, "a gan makes numbers and pictures, not text", "use columns of numbers, pictures or arrays"),
    Rule(
        "gan-preset", "R", ("/model",), preset_inside,
        "a preset is written out for a model alone, not for a network of a gan", "give its fields: stem, stages, block",
    ),
    Rule(
        "generator-output", "R", ("/model", "/data", "/task"), generator_ends,
        "the generator's last layer gives {end}, and a sample has {outputs} numbers", "end with linear with units: {outputs}, or with as many channels and places",
    ),
    Rule(
        "discriminator-output", "R", ("/model", "/data", "/task"), discriminator_ends,
        "the discriminator's last layer gives {end}, and it says one number", "end with flatten or global_avg, then linear with units: 1",
    ),
    Rule(
        "generator-never-learns", "R", ("/task/discriminator_steps", *RUN_READS), generator_never_learns,
        "the generator learns in every step that {steps} divides, and the run has {total}", "train for longer, or lower `task.discriminator_steps`",
    ),
    Rule(
        "gradient-penalty-of-batches", "R", PENALTY, penalty_of_batches,
        "`loss.gradient_penalty` is of single samples, and BatchNorm mixes those of a batch", "use layer or group normalisation in the discriminator, or set it to 0",
    ),
    Rule(
        "gradient-penalty-of-layers", "R", PENALTY, penalty_of_layers,
        "`loss.gradient_penalty` needs second derivatives, which PyTorch does not have of {kind}", "use other layers in the discriminator, or set it to 0",
    ),
    Rule(
        "gradient-penalty-in-fp16", "R", ("/loss", "/model/type", "/precision/mode"), penalty_in_fp16,
        "`loss.gradient_penalty` takes slopes within the loss, where no loss scale keeps them from vanishing in fp16", "use bf16_mixed or fp32",
    ),
    Rule(
        "frechet-numbers", "R", ("/evaluation/metrics", "/data", "/task"), many_covariances,
        "frechet_distance compares the covariances of all {numbers} numbers of a sample, and {most} are the most", "use mmd",
    ),
    Rule(
        "slope-unbounded", "W", ("/loss", "/regularization/spectral_norm"), unbounded_slope,
        "nothing bounds the slope of the discriminator, which the wasserstein distance assumes",
        "set `loss.gradient_penalty`, for example 10, or `regularization.spectral_norm` with pattern discriminator.*",
    ),
)  # fmt: skip
