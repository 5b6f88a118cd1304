"""Parts of a model made one: the same parameter under both names, of which the state holds the first alone."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from stoker.spec.model.sharing import Share
from worker.trainer.errors import SpecProblem


def share(model: nn.Module, shares: Iterable[Share]) -> nn.Module:
    """Each target gets the parameters of its source. Raises SpecProblem where a name is not there or shapes differ."""
    shares = tuple(shares)
    for index, one in enumerate(shares):
        where = f"model.sharing[{index}]"
        sources, targets = _below(model, one.source, f"{where}.source"), _below(model, one.target, f"{where}.target")
        if {name: p.shape for name, p in sources.items()} != {name: p.shape for name, p in targets.items()}:
            raise SpecProblem(f"{where}: {one.source} and {one.target} have not the same weights of the same shapes")
        for name, param in sources.items():
            _put(model, f"{one.target}.{name}".removesuffix("."), param)
    if shares:
        _hold_once(model)
    return model


def _below(model: nn.Module, part: str, where: str) -> dict[str, nn.Parameter]:
    """Parameters of a module by their names within it; of a parameter itself, under ``."""
    every = dict(model.named_parameters(remove_duplicate=False))
    if part in every:
        return {"": every[part]}
    found = {name.removeprefix(f"{part}."): param for name, param in every.items() if name.startswith(f"{part}.")}
    if not found:
        raise SpecProblem(f"{where}: there are no weights below {part}; there are, for example, {', '.join(list(every)[:5])}")
    return found


def _put(model: nn.Module, name: str, param: nn.Parameter) -> None:
    owner, _, key = name.rpartition(".")
    setattr(model.get_submodule(owner), key, param)


def _hold_once(model: nn.Module) -> None:
    """State dicts have each tensor under the first of its names, and give it to all of them."""
    first: dict[int, str] = {}
    others: dict[str, str] = {}
    for name, param in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(param), name) != name:
            others[name] = first[id(param)]

    def leave_out(module: nn.Module, state: dict[str, Any], prefix: str, local: dict[str, Any]) -> None:
        for other in others:
            state.pop(f"{prefix}{other}", None)

    def hand_out(module: nn.Module, state: dict[str, torch.Tensor], prefix: str, *more: Any) -> None:
        for other, name in others.items():
            if f"{prefix}{name}" in state:
                state[f"{prefix}{other}"] = state[f"{prefix}{name}"]

    model.register_state_dict_post_hook(leave_out)  # type: ignore[no-untyped-call]  # torch has no types here
    model.register_load_state_dict_pre_hook(hand_out)  # type: ignore[no-untyped-call]  # torch has no types here
