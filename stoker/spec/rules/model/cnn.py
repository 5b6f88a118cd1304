"""Rules of `model` for cnn."""

from collections.abc import Iterator

from stoker.spec.model import CNN
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule


@rule(
    "cnn-input",
    reads=("/model", "/data", "/task"),
    message="a cnn reads (channels, length) or (channels, height, width), but gets {given}",
    hint="set `model.input_shape`, for example [1, 8, 8], or use an mlp",
)
def cnn_needs_pictures(case: Case) -> Iterator[Hit]:
    for network in case.networks:
        misfit = case.misfits.get(network.pointer)
        if isinstance(network.model, CNN) and misfit is not None and misfit.kind == "dimensions":
            yield hit(f"{network.pointer}/input_shape", given=misfit.holes["given"])
