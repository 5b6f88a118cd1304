"""A bend that keeps values within bounds."""

import torch


def softcapped(values: torch.Tensor, cap: float) -> torch.Tensor:
    """Into (-cap, cap), near zero unchanged (Bello et al. 2016)."""
    return cap * torch.tanh(values / cap)
