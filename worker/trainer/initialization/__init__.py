"""Initialization specs into a model as it stands at step 0."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from stoker.events import Notice
from stoker.spec.initialization import Cold, Initialization, Override, Pretrained, Warm
from stoker.spec.initialization.finetune import matches
from worker.trainer.data.codec import Codec
from worker.trainer.errors import SpecProblem
from worker.trainer.model.init import draw
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.names import plain

FOLDER = "start"
"""Of the checkpoint that a run starts from in the workspace, beside the data sets."""
AT = "initialization.start"
TOKEN_ROWS = ("tokens.weight", "head_bias")
"""What has a row per token."""
SHOWN = 20
"""Names that a message has room for; the event has all."""


@dataclass(frozen=True)
class Given:
    """Weights by the model's own names, and where they come from."""

    tensors: Mapping[str, torch.Tensor]
    source: str
    codec: Codec | None = None
    """The tokens that the model of these weights read, where that is known."""
    aside: tuple[str, ...] = ()
    """Names of what the source has beside these, for other tasks."""


def begin(spec: Initialization, model: nn.Module, given: Given | None, codec: Codec | None, journal: Journal) -> None:
    """The model's weights put in place. Raises SpecProblem for a pattern that fits nothing and for weights that do not fit.

    `given` is None for a cold start, and for a run that goes on from a checkpoint of its own. `codec`: the tokens that it reads.
    """
    _redraw(spec.overrides, model)
    if given is None or isinstance(spec.start, Cold):
        return
    journal.write(fill(spec.start, model, given, codec))


@torch.no_grad()
def _redraw(overrides: Iterable[Override], model: nn.Module) -> None:
    for index, override in enumerate(overrides):
        found = [module for name, module in model.named_modules() if matches(plain(name), (override.pattern,))]
        if not sum(draw(module, override.init) for module in found):
            known = ", ".join(name for name, _ in model.named_modules() if name)
            raise SpecProblem(
                f"initialization.overrides[{index}].pattern: {override.pattern!r} matches no layer with weights to draw; "
                f"there are {known[:600]}"
            )


@torch.no_grad()
def fill(spec: Warm | Pretrained, model: nn.Module, given: Given, codec: Codec | None = None) -> Notice:
    """Each weight and buffer that the source has, as it is there. Raises SpecProblem; what to say of it else."""
    own = {plain(name): tensor for name, tensor in model.state_dict().items()}
    head = head_of(model) if spec.reset_head else ()
    for index, pattern in enumerate(spec.exclude_keys):
        if not any(matches(name, (pattern,)) for name in (*own, *given.tensors, *given.aside)):
            raise SpecProblem(f"{AT}.exclude_keys[{index}]: {pattern!r} matches no weight of the model or of {given.source}")
    left = {name for name in (*own, *given.tensors) if name in head or matches(name, spec.exclude_keys)}
    taken = {name: tensor for name, tensor in given.tensors.items() if name in own and name not in left}
    taken |= {name: _fitted(name, tensor, own[name], codec) for name, tensor in taken.items()}
    other = {name for name, tensor in taken.items() if tensor.shape != own[name].shape}
    _same_tokens(model, taken.keys() - other, given, codec)
    missing = sorted(own.keys() - taken.keys() - left | other)
    unexpected = sorted(given.tensors.keys() - own.keys() - left | other)
    if other and spec.strict:
        name = min(other)
        raise SpecProblem(
            f"{AT}: {name} is {list(taken[name].shape)} in {given.source} and {list(own[name].shape)} in this model; leave it out "
            "with exclude_keys or reset_head, or build the model that the weights are of"
        )
    if (missing or unexpected) and spec.strict:
        raise SpecProblem(f"{AT}: {_said(given.source, missing, unexpected)}; name them in exclude_keys, or set strict to false")
    if len(other) == len(taken):
        raise SpecProblem(f"{AT}: {given.source} has none of this model's weights; it has {_some(sorted(given.tensors))}")
    for name in taken.keys() - other:
        own[name].copy_(taken[name])
    kept = sorted(own.keys() & left)
    data = {"loaded": len(taken) - len(other), "missing": missing, "unexpected": unexpected, "fresh": kept}
    data |= {"aside": list(given.aside)} if given.aside else {}
    message = f"starts with {len(taken) - len(other)} tensors of {given.source}"
    if kept:
        message += f"; initialized at random: {_some(kept)}"
    if given.aside:
        message += f"; heads of other tasks left aside: {_some(list(given.aside))}"
    if missing or unexpected:
        message += f"; {_said(given.source, missing, unexpected)}"
    return Notice(level="warning" if missing or unexpected else "info", code="weights_loaded", message=message, step=0, data=data)


def _same_tokens(model: nn.Module, taken: Iterable[str], given: Given, codec: Codec | None) -> None:
    """Rows of an embedding mean tokens. Raises SpecProblem where they would come to mean others."""
    if codec is None or given.codec is None or codec.dump() == given.codec.dump():
        return
    rows = {f"{plain(name)}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    for name in sorted(rows.intersection(taken) - {"positions.weight"}):
        raise SpecProblem(
            f"{AT}: {name} of {given.source} is of other tokens than those of this data; use the tokenizer and the characters of that "
            "job, or leave embedding and head out with exclude_keys"
        )


def _fitted(name: str, tensor: torch.Tensor, own: torch.Tensor, codec: Codec | None) -> torch.Tensor:
    """Of a table of learned positions as many as this model has: the first ones are the same in a longer one.

    To what has a row per token of the tokenizer, the row after them that this model drew: padding, or what stands for the hidden.
    """
    if name == "positions.weight" and tensor.dim() == own.dim() and len(tensor) > len(own):
        return tensor[: len(own)]
    of_tokens = name in TOKEN_ROWS or name.endswith(".tokens.weight")
    if of_tokens and codec is not None and tensor.shape[1:] == own.shape[1:] and len(tensor) == codec.rows == len(own) - 1:
        return torch.cat((tensor.to(own), own[-1:]))
    return tensor


def head_of(model: nn.Module) -> frozenset[str]:
    """Names of the weights of the last layer. Raises SpecProblem where it is not a layer of its own."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if getattr(model, "head", layers) is None or not layers:
        raise SpecProblem(f"{AT}.reset_head: the last layer of this model is its embedding; untie it, or set reset_head to false")
    last = next((name for name in layers if name == "head" or name.endswith(".head")), list(layers)[-1])
    parent = last.rpartition(".")[0]
    several = model.get_submodule(parent) if last.rpartition(".")[2].startswith("head_") else None
    if several is not None:  # a head for each task, and what is known of their noise
        return frozenset(f"{plain(parent)}.{key}" for key in several.state_dict())
    return frozenset(f"{plain(last)}.{key}" for key in layers[last].state_dict())


def _said(source: str, missing: list[str], unexpected: list[str]) -> str:
    parts = [f"{source} lacks {_some(missing)}"] if missing else []
    parts += [f"the model has no place for {_some(unexpected)} of {source}"] if unexpected else []
    return "; ".join(parts)


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
