"""Rules of `model.sharing`."""

from collections.abc import Iterator

from stoker.spec.distributed import DDP, Horovod, LocalSGD, Single
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule


@rule(
    "sharing-whole-weights",
    reads=("/model/sharing", "/distributed"),
    message="weights that parts share must be whole on each rank",
    hint="use strategy single, ddp with whole models, local_sgd or horovod; or remove `model.sharing`",
)
def sharing_needs_whole_weights(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    whole = isinstance(spec, DDP) and spec.tensor_degree == spec.pipeline_degree == 1
    for at, model, _ in case.networks:
        if model.sharing and not whole and not isinstance(spec, Single | LocalSGD | Horovod):
            yield hit(f"{at}/sharing")


@rule(
    "sharing-itself",
    reads=("/model/sharing",),
    message="`{source}` and `{target}` are the same part, or one contains the other",
    hint="name two separate parts",
)
def sharing_twice(case: Case) -> Iterator[Hit]:
    """A part that takes another's weights and has some of them taken, or takes its own."""
    for at, model, _ in case.networks:
        for index, one in enumerate(model.sharing):
            if any(a == b or b.startswith(f"{a}.") for a, b in ((one.source, one.target), (one.target, one.source))):
                yield hit(f"{at}/sharing/{index}", source=one.source, target=one.target)
