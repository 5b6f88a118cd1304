"""Rules of `model` for gan."""

import math
from collections.abc import Iterator

from stoker.spec.initialization import Cold
from stoker.spec.model import CNN, GAN, Layers
from stoker.spec.model.layers import AttentionLayer, RecurrentLayer
from stoker.spec.model.shapes import infer, written
from stoker.spec.rules._case import Case
from stoker.spec.rules._networks import batch_norm_of, every
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.schedule import Cyclic, OneCycle
from stoker.spec.task import Generation


@rule(
    "gan-without",
    reads=("/model/type", "/training", "/initialization", "/interpretability", "/evaluation", "/debug", "/data", "/schedule"),
    message="`{path}` is not supported for a gan, which has two networks",
    hint="remove `{path}`",
)
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


@rule(
    "gan-preset",
    reads=("/model",),
    message="a preset is written out for a model alone, not for a network of a gan",
    hint="give its fields: stem, stages, block",
)
def preset_inside(case: Case) -> Iterator[Hit]:
    for at, model, _ in case.networks if isinstance(case.spec.model, GAN) else ():
        if isinstance(model, CNN) and model.preset is not None:
            yield hit(f"{at}/preset")


@rule(
    "generator-output",
    reads=("/model", "/data", "/task"),
    message="the generator's last layer gives {end}, and a sample has {outputs} numbers",
    hint="end with linear with units: {outputs}, or with as many channels and places",
)
def generator_ends(case: Case) -> Iterator[Hit]:
    """In as many numbers as a sample has."""
    outputs = case.problem.outputs
    if not isinstance(case.spec.model, GAN) or not isinstance(case.spec.task, Generation) or outputs is None:
        return
    generator = next(iter(case.networks))
    if isinstance(generator.model, Layers) and generator.reads is not None and generator.pointer not in case.misfits:
        layers = generator.model.layers
        form = infer(layers, generator.reads)
        if math.prod(form.shape) != outputs:
            yield hit(f"/model/generator/layers/{len(layers) - 1}", end=written(form.shape), outputs=outputs)


@rule(
    "discriminator-output",
    reads=("/model", "/data", "/task"),
    message="the discriminator's last layer gives {end}, and it says one number",
    hint="end with flatten or global_avg, then linear with units: 1",
)
def discriminator_ends(case: Case) -> Iterator[Hit]:
    """In one number."""
    for at, model, reads in case.networks if isinstance(case.spec.model, GAN) else ():
        if at != "/model/discriminator" or not isinstance(model, Layers) or reads is None:
            continue
        if _fits(case) and (end := infer(model.layers, reads).shape) != (1,):
            yield hit(f"{at}/layers/{len(model.layers) - 1}", end=written(end))


def _fits(case: Case) -> bool:
    return all(network.pointer not in case.misfits for network in case.networks)


@rule(
    "gradient-penalty-of-batches",
    reads=("/loss", "/model"),
    message="`loss.gradient_penalty` is of single samples, and BatchNorm mixes those of a batch",
    hint="use layer or group normalization in the discriminator, or set it to 0",
)
def penalty_of_batches(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if isinstance(model, GAN) and case.penalized:
        pointer = batch_norm_of(model.discriminator, "/model/discriminator")
        if pointer is not None:
            yield hit(pointer)


@rule(
    "gradient-penalty-of-layers",
    reads=("/loss", "/model"),
    message="`loss.gradient_penalty` needs second derivatives, which PyTorch does not have of {kind}",
    hint="use other layers in the discriminator, or set it to 0",
)
def penalty_of_layers(case: Case) -> Iterator[Hit]:
    """What PyTorch has no second derivative of."""
    model = case.spec.model
    if isinstance(model, GAN) and case.penalized and isinstance(model.discriminator, Layers):
        for pointer, layer in every(model.discriminator.layers, "/model/discriminator/layers"):
            if isinstance(layer, AttentionLayer | RecurrentLayer):
                yield hit(pointer, kind=layer.type)
