"""Samples as tensors, for tests that look at all of them."""

import torch

from worker.trainer.data import Samples

HOST = torch.device("cpu")


def inputs_of(samples: Samples) -> torch.Tensor:
    """As the model reads them: token ids are int64."""
    return samples.slice(0, len(samples), HOST)[0]


def targets_of(samples: Samples) -> torch.Tensor:
    return samples.slice(0, len(samples), HOST)[1]
