"""In which number format an LSTM computes on a CPU under bfloat16 autocast."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import nn


def lstm_format(layers: nn.RNNBase, x: torch.Tensor) -> AbstractContextManager[object]:
    """The context to call recurrent layers in.

    Under bfloat16 autocast torch gives an LSTM on a CPU to oneDNN, which has none in bfloat16 for CPUs without AVX-512: it raises
    "could not create a primitive descriptor". There the LSTM computes in fp32, as its weights are; anywhere else nothing changes.
    """
    cast = isinstance(layers, nn.LSTM) and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    if not cast or torch.get_autocast_dtype("cpu") is not torch.bfloat16 or has_bfloat16_lstm():
        return nullcontext()
    return torch.autocast("cpu", enabled=False)


@cache
def has_bfloat16_lstm() -> bool:
    """Whether this CPU has one; tried once with zeros, since torch does not say which primitives oneDNN has."""
    x, state = torch.zeros(1, 1, 1), (torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    weights = [torch.zeros(4, 1), torch.zeros(4, 1)]
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            torch.lstm(x, state, weights, False, 1, 0.0, False, False, True)
    except RuntimeError:
        return False
    return True
