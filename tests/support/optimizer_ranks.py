"""What each of two ranks does: every optimizer moves weights that are whole, and the same weights in shards; they stay equal."""

import json
import os
import traceback
from typing import Any

import torch
import torch.distributed as dist
from pydantic import TypeAdapter
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

from stoker.spec.optimizer import Optimizer
from worker.trainer.optimizer import build_optimizer
from worker.trainer.runtime.names import weights_of
from worker.trainer.runtime.shards import placed, whole

STEPS = 4
OPTIMIZERS: list[dict[str, Any]] = [
    {"type": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    {"type": "adam", "weight_decay": 0.1, "param_groups": [{"pattern": "0.*", "lr_scale": 0.5}]},
    {"type": "adamw", "decay_norms_and_biases": False},
    {"type": "nadam", "weight_decay": 0.1},
    {"type": "radam", "beta2": 0.9, "weight_decay": 0.1},
    {"type": "adamax", "weight_decay": 0.1},
    {"type": "rmsprop", "momentum": 0.9, "centered": True},
    {"type": "adagrad", "lr_decay": 0.1},
    {"type": "adadelta", "weight_decay": 0.1},
    {"type": "lion", "weight_decay": 0.1},
    {"type": "muon", "weight_decay": 0.1, "newton_schulz_precision": "weights"},
]


def model() -> nn.Module:
    """Rows that do not divide, fewer rows than ranks, vectors, a kernel."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 1), nn.Conv2d(3, 5, 2), nn.LayerNorm(3), nn.Linear(3, 4)).double()


def moved_alike(document: dict[str, Any], mesh: DeviceMesh) -> None:
    spec: Any = TypeAdapter(Optimizer).validate_json(json.dumps(document))
    one, parts = model(), model()
    fully_shard(parts, mesh=mesh)
    moves = [build_optimizer(spec, weights_of(each)) for each in (one, parts)]
    for step in range(STEPS):
        noise = torch.Generator().manual_seed(step)
        for left, right in zip(one.parameters(), parts.parameters(), strict=True):
            left.grad = torch.randn(left.shape, generator=noise, dtype=left.dtype)
            right.grad = placed(left.grad, right.detach())
        for optimizer in moves:
            for group in optimizer.param_groups:
                group["lr"] = spec.lr * group["scale"]
            optimizer.step()
    for left, right in zip(one.parameters(), parts.parameters(), strict=True):
        difference = (whole(right.detach()) - left.detach()).abs().max().item()
        assert difference < 1e-12, f"{spec.type}: a weight of shape {tuple(left.shape)} is off by {difference}"
    first, second = ({key for state in optimizer.state.values() for key in state} for optimizer in moves)
    assert first == second, f"{spec.type} remembers {first} of whole weights, {second} of weights in shards"


def rank() -> int:
    """The exit code of a rank as the environment says it."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        dist.init_process_group("gloo")
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for document in OPTIMIZERS:
            moved_alike(document, mesh)
    except Exception:
        traceback.print_exc()
        return 1
    return 0
