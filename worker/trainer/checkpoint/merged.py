"""A checkpoint read as if its model had never had adapters, one tensor at a time."""

from pathlib import Path

import torch

from stoker.spec.initialization.finetune import Lora
from worker.trainer.checkpoint.read import Stored
from worker.trainer.initialization.adapter import merged, own_name


class Merged(Stored):
    def __init__(self, path: Path, adapter: Lora | None) -> None:
        super().__init__(path)
        self._adapter = adapter

    def names(self, store: str) -> frozenset[str]:
        found = super().names(store)
        return found if self._adapter is None or store != "model" else frozenset(name for name in found if own_name(name))

    def whole(self, store: str, name: str) -> torch.Tensor:
        weight, layer = super().whole(store, name), name.removesuffix(".weight")
        if self._adapter is None or store != "model" or f"{layer}.lora_a" not in super().names(store):
            return weight
        a, b = (super(Merged, self).whole(store, f"{layer}.{part}") for part in ("lora_a", "lora_b"))
        return merged(weight, a, b, self._adapter.factor)
