"""Weights that parts of a model share, on paper: counted under the first of their names alone."""

from collections.abc import Iterator, Sequence

from stoker.errors import Finding, SpecError
from stoker.plan.tape import Tape, Weight
from stoker.spec.model.sharing import Share


def share(tape: Tape, shares: Sequence[Share]) -> None:
    """Take from the tape what is there under another name already. Raises SpecError where names or shapes do not fit."""
    if not shares:
        return
    tape.weights[:] = _each(tape.weights)
    names = {weight.name: weight.name for weight in tape.weights}
    """Each name, and the name of the weight that it now means."""
    shapes = {weight.name: weight.shape for weight in tape.weights}
    for index, one in enumerate(shares):
        sources, targets = (_below(names, part) for part in (one.source, one.target))
        for key, part, found in (("source", one.source, sources), ("target", one.target, targets)):
            if not found:
                raise _refused(f"/model/sharing/{index}/{key}", f"there are no weights below `{part}`; there are {_some(names)}")
        if {name: shapes[full] for name, full in sources.items()} != {name: shapes[full] for name, full in targets.items()}:
            what = f"`{one.source}` and `{one.target}` have not the same weights of the same shapes"
            raise _refused(f"/model/sharing/{index}", what)
        for name, full in targets.items():
            names[full] = names[sources[name]]
    first: dict[str, str] = {}
    for name, meant in names.items():
        first.setdefault(meant, name)
    tape.weights[:] = [weight for weight in tape.weights if weight.name in first.values()]


def _each(weights: Sequence[Weight]) -> Iterator[Weight]:
    """Equal blocks one by one, in the order of the model."""
    stacked: list[Weight] = []
    for weight in [*weights, None]:
        if weight is not None and "{}" in weight.name:
            stacked.append(weight)
            continue
        for index in range(stacked[0].copies if stacked else 0):
            yield from (Weight(each.name.format(index), each.shape, each.part, 1, each.item) for each in stacked)
        stacked = []
        if weight is not None:
            yield weight


def _below(names: dict[str, str], part: str) -> dict[str, str]:
    """Weights of a module, or a weight itself, by their names within it."""
    if part in names:
        return {"": part}
    return {name.removeprefix(f"{part}."): name for name in names if name.startswith(f"{part}.")}


def _some(names: dict[str, str]) -> str:
    return ", ".join([f"`{name}`" for name in names][:5])


def _refused(pointer: str, message: str) -> SpecError:
    hint = "name modules or weights as the checkpoint does, of equal shapes"
    return SpecError([Finding(pointer=pointer, code="sharing-parts", message=message, hint=hint)])
