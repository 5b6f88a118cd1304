"""What stacks of layers need beside torch's own modules. Shapes: B samples, C channels, T steps, F features."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from stoker.spec.model.layers import AttentionLayer, EmbeddingLayer, RecurrentLayer
from worker.trainer.model.lstm_format import lstm_format
from worker.trainer.model.parts import shared_cast
from worker.trainer.model.recurrent import recurrent_layers


class Branch(nn.Module):
    """shortcut(x) + layers(x); no shortcut leaves x as it is."""

    def __init__(self, layers: nn.Sequential, shortcut: nn.Sequential | None) -> None:
        super().__init__()
        self.layers, self.shortcut = layers, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around = x if self.shortcut is None else self.shortcut(x)
        out: torch.Tensor = around + self.layers(x)
        return out


class Turned(nn.Module):
    """A normalisation of (B, ..., F) applied to (B, C, ...), or the reverse."""

    def __init__(self, norm: nn.Module, *, last: bool) -> None:
        """`last`: whether the normalisation takes features last."""
        super().__init__()
        self.norm, self._there = norm, (1, -1) if last else (-1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        there, back = self._there
        out: torch.Tensor = self.norm(x.movedim(there, back)).movedim(back, there)
        return out.contiguous()


class GlobalPool(nn.Module):
    """(B, C, ...) or (B, T, F) to what is left once all places or steps are one: (B, C) or (B, F)."""

    def __init__(self, *, steps: bool, largest: bool) -> None:
        super().__init__()
        self._steps, self._largest = steps, largest

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places, dim = (x, 1) if self._steps else (x.flatten(2), 2)
        return places.amax(dim) if self._largest else places.mean(dim)


class Rearranged(nn.Module):
    """(B, C, ...) to (B, T, C), or (B, T, C) to (B, C, T)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).transpose(1, 2).contiguous()


class Reshaped(nn.Module):
    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self._shape = tuple(shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), *self._shape)


class SelfAttention(nn.Module):
    """softmax(Q K^T / sqrt(width)) V in each head (Vaswani et al. 2017), over steps or over the places of pictures."""

    def __init__(self, spec: AttentionLayer, features: int) -> None:
        super().__init__()
        self.causal, self.dropout, self.width = spec.causal, spec.dropout, spec.key_dim or features // spec.num_heads
        self.q, self.k, self.v = (nn.Linear(features, spec.num_heads * self.width, spec.bias) for _ in range(3))
        self.out = nn.Linear(spec.num_heads * self.width, features, spec.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 3:
            return self._over_steps(x)
        steps = x.flatten(2).transpose(1, 2).contiguous()
        return self._over_steps(steps).transpose(1, 2).reshape(x.shape)

    def _over_steps(self, x: torch.Tensor) -> torch.Tensor:
        x = shared_cast(x)
        q, k, v = (part.unflatten(-1, (-1, self.width)).transpose(1, 2) for part in (self.q(x), self.k(x), self.v(x)))
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0, is_causal=self.causal)
        out: torch.Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


class Reader(nn.Module):
    """(B, T, F) to what a recurrent network says at each step, (B, T, W), or at its end, (B, W)."""

    def __init__(self, spec: RecurrentLayer, features: int) -> None:
        super().__init__()
        self.spec = spec.model
        self.layers = recurrent_layers(self.spec, features)
        self._end, self._units = spec.says == "end", spec.units

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        narrow = next(self.layers.parameters()).dtype  # states have the format of the weights, whatever products have
        with lstm_format(self.layers, x):
            said: torch.Tensor = self.layers(x.to(narrow))[0]
        if not self._end:
            return said.contiguous()
        if not self.layers.bidirectional:
            return said[:, -1]
        return torch.cat((said[:, -1, : self._units], said[:, 0, self._units :]), -1)


class Tokens(nn.Module):
    """(B, T) ids to (B, T, F), T up to the length that it was made for."""

    def __init__(self, spec: EmbeddingLayer, length: int, vocabulary: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, spec.size)
        self.positions = nn.Embedding(length, spec.size) if spec.positions else None

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.tokens(ids)
        return x if self.positions is None else x + self.positions.weight[: ids.shape[1]]
