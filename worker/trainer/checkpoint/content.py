"""What a run's checkpoint consists of: tensors by store and name, and a document for the rest."""

import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from worker.trainer.assembly import Run
from worker.trainer.checkpoint.boxes import Stores, local, summed
from worker.trainer.runtime.names import plain

EXTRA = "_extra."
"""Names of what is trained beside the model: weights of the loss, in the order of the optimizer."""


def model_tensors(run: Run) -> dict[str, torch.Tensor]:
    """Weights and buffers of this rank, themselves and not copies."""
    return {plain(name): tensor.detach() for name, tensor in run.model.state_dict().items()}


def trained(run: Run) -> Iterator[tuple[str, nn.Parameter]]:
    """All that the optimizer moves on this rank, by the name under which its moments are kept."""
    names = {id(param): plain(name) for name, param in run.model.named_parameters()}
    extra = 0
    for group in run.optimizer.param_groups:
        for param in group["params"]:
            if id(param) in names:
                yield names[id(param)], param
            else:
                yield f"{EXTRA}{extra}", param
                extra += 1


def stores_of(run: Run) -> Stores:
    """Everything that belongs to the whole run. Every rank calls it: parts may gather."""
    found: dict[str, dict[str, torch.Tensor]] = {"model": model_tensors(run), "optimizer": {}, "best": {}, "parts": {}}
    for name, param in trained(run):
        state = run.optimizer.state.get(param, {})
        found["optimizer"] |= {f"{name}.{key}": value for key, value in state.items() if isinstance(value, torch.Tensor)}
        if name.startswith(EXTRA):
            found["parts"][name] = param.detach()
    found["best"] = {plain(name): tensor for name, tensor in run.judge.weights.items()}
    for name, part in run.stateful.items():
        found["parts"] |= {f"{name}/{key}": value for key, value in part.tensors().items()}
    return {store: {name: summed(tensor.detach()) for name, tensor in tensors.items()} for store, tensors in found.items()}


def numbers_of(run: Run) -> dict[str, dict[str, Any]]:
    """What optimizers remember of a weight beside tensors."""
    kept = {
        name: {key: value for key, value in run.optimizer.state.get(param, {}).items() if isinstance(value, bool | int | float)}
        for name, param in trained(run)
    }
    return {name: values for name, values in kept.items() if values}


def rank_states(run: Run) -> dict[str, torch.Tensor]:
    """Stacked by rank: random generators, the summed training loss that was not reported yet, which part of the batch it is of."""
    states = {"rng": torch.get_rng_state(), "loss": local(run.log.meter.total).reshape(1)}
    states["part"] = torch.tensor([run.world.data_index])
    if run.world.device.type == "cuda":
        states["cuda_rng"] = torch.cuda.get_rng_state(run.world.device)
    return {name: run.world.gather(state.to(run.world.device)).cpu() for name, state in states.items()}


def state_of(run: Run, *, final: bool) -> bytes:
    """state.json."""
    judge, feed = run.judge, run.feed
    samples = feed.samples_after(run.clock.step)
    values = {
        "step": run.clock.step,
        "epoch": feed.timeline.place(run.clock.step).epoch,
        "batch": feed.timeline.place(run.clock.step).at,
        "samples": samples,
        "tokens": samples * run.data.train.tokens_per_sample,
        "samples_per_epoch": feed.samples_per_epoch,
        "data_parts": run.world.data_parts,
        "seconds": run.control.seconds,
        "logged": run.clock.logged,
        "evaluated": run.clock.evaluated,
        "unreported_weight": run.log.meter.weight,
        "metrics": run.metrics,
        "ended": run.ended if final else None,
        "parts": {name: part.values() for name, part in run.stateful.items()},
        "optimizer": numbers_of(run),
        "judge": {
            "best": judge.best,
            "best_step": judge.best_step,
            "best_metrics": judge.best_metrics,
            "stale": judge.stale,
        },
    }
    return json.dumps(values, indent=1).encode()
