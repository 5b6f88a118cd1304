"""Sequence specs: a stream of tokens into windows, and texts into rows of equal length."""

from collections.abc import Sequence as Many

import numpy as np
import numpy.typing as npt
import torch

from stoker.spec.data.sequence import Sequence
from stoker.spec.derived.arithmetic import windows
from worker.trainer.data.codec import Codec
from worker.trainer.data.samples import Samples


def cut_windows(spec: Sequence, ids: npt.NDArray[np.int32]) -> Samples:
    """Windows that do not overlap; each predicts the token after every one of its own. Two views of one copy of the ids."""
    count, tokens = windows(len(ids), spec.length), torch.empty(max(1, len(ids)), dtype=torch.int32)
    tokens[: len(ids)].copy_(torch.from_numpy(ids.copy()))
    used = count * spec.length
    return Samples(tokens[:used].view(count, spec.length), tokens[1 : used + 1].view(count, spec.length))


def padded(codec: Codec, texts: Many[str], length: int) -> torch.Tensor:
    """(n, length) int32: the first tokens of each text, and where it is shorter its padding, or the token after all of the codec."""
    ids = torch.full((len(texts), length), codec.rows if codec.pad is None else codec.pad, dtype=torch.int32)
    for row, tokens in zip(ids, codec.encode_each(texts, length), strict=True):
        row[: len(tokens)].copy_(torch.from_numpy(tokens.copy()))
    return ids
