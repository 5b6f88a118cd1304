"""Reproducibility spec into seeds and kernels."""

import hashlib
import os
from dataclasses import dataclass

import torch

from stoker.spec.reproducibility import Reproducibility


@dataclass(frozen=True)
class Seeds:
    """One stream per purpose, so that a longer use of one never shifts another."""

    seed: int
    data_seed: int

    @property
    def weights(self) -> int:
        return self.seed

    def noise(self, rank: int, step: int) -> int:
        """Dropout of a rank that starts at a step."""
        return _derive(self.seed, "noise", rank, step)

    def attack(self, part: int, step: int) -> int:
        """Random starts of attacks on one part of the batch of a step."""
        return _derive(self.seed, "attack", part, step)

    @property
    def split(self) -> int:
        return _derive(self.data_seed, "split")

    @property
    def mask(self) -> int:
        """Which tokens are hidden."""
        return _derive(self.data_seed, "mask")

    @property
    def latent(self) -> int:
        """What generated samples are made of."""
        return _derive(self.seed, "latent")

    def order(self, epoch: int) -> int:
        return _derive(self.data_seed, "order", epoch)


def _derive(seed: int, *path: str | int) -> int:
    text = "/".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def build_seeds(spec: Reproducibility) -> Seeds:
    return Seeds(spec.seed, spec.seed if spec.data_seed is None else spec.data_seed)


def use_kernels(spec: Reproducibility) -> None:
    """Deterministic kernels or the fastest ones, for this process."""
    if spec.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is only deterministic with a fixed workspace
    torch.use_deterministic_algorithms(spec.deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # finds bugs of kernels, at the price of a write per tensor
    torch.backends.cudnn.benchmark = not spec.deterministic
