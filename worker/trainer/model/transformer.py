"""What decoders and encoders are made of. Shapes: B sequences, T tokens, C hidden_size, H heads, K key_dim, W value_dim."""

import math
from collections.abc import Callable
from typing import assert_never

import torch
from torch import nn
from torch.nn import functional as F

from stoker.spec.model.transformer import (
    AlibiPosition,
    LearnedPosition,
    LinearScaling,
    NtkScaling,
    RotaryPosition,
    Scaling,
    SinusoidalPosition,
    Transformer,
)
from worker.trainer.errors import SpecProblem
from worker.trainer.model.parts import build_activation, build_normalization, shared_cast
from worker.trainer.runtime.compat import AnyBatchNorm
from worker.trainer.runtime.softcap import softcapped

Attend = Callable[..., torch.Tensor]
"""Queries (B, H, T, K), keys and values of as many heads or fewer, probability of dropout → (B, H, T, W); those of encoders take
a fifth, (B, 1, 1, T): what is added to scores, minus infinity at padding.
"""


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float) -> torch.Tensor:
    """Each token to itself and those before it."""
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


def attend_all(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float, padding: torch.Tensor | None = None
) -> torch.Tensor:
    """Each token to all, but none to padding."""
    return F.scaled_dot_product_attention(q, k, v, padding, dropout_p=dropout, enable_gqa=q.shape[1] != k.shape[1])


class Bias:
    """What is added to attention scores: minus infinity where a token is not seen, and what distance costs a head. The same
    memory for all layers.
    """

    def __init__(self, *, causal: bool, window: int | None, slopes: torch.Tensor | None) -> None:
        """`slopes`, (H,): what each head loses per token of distance."""
        self._causal, self._window, self._slopes = causal, window, slopes
        self._made: dict[tuple[int, torch.dtype, torch.device], torch.Tensor] = {}

    def __call__(self, like: torch.Tensor) -> torch.Tensor:
        """(T, T) or (1, H, T, T), for queries like (B, H, T, K)."""
        key = like.shape[2], like.dtype, like.device
        if key not in self._made:
            self._made[key] = self._make(*key)
        return self._made[key]

    def _make(self, length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        places = torch.arange(length, device=device)
        back = places[:, None] - places  # how far each key is behind its query
        unseen = torch.zeros_like(back, dtype=torch.bool)
        if self._causal:
            unseen |= back < 0
        if self._window is not None:
            unseen |= back.abs() >= self._window
        bias = torch.zeros(length, length, device=device)
        if self._slopes is not None:
            bias = -self._slopes.to(device)[None, :, None, None] * back.abs()
        return bias.masked_fill(unseen, -torch.inf).to(dtype)


class Biased:
    """Attention by the fused kernel, with a bias."""

    def __init__(self, bias: Bias) -> None:
        self._bias = bias

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float) -> torch.Tensor:
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(q, k, v, self._bias(q), dropout_p=dropout, enable_gqa=grouped)


class Capped:
    """Attention step by step, with scores bent into a bound."""

    def __init__(self, cap: float, bias: Bias | None) -> None:
        self._cap, self._bias = cap, bias

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float, padding: torch.Tensor | None = None
    ) -> torch.Tensor:
        groups = q.shape[1] // k.shape[1]
        if groups > 1:
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        scores = softcapped(q @ k.mT / math.sqrt(q.shape[-1]), self._cap)
        if self._bias is not None:
            scores = scores + self._bias(q)
        if padding is not None:
            scores = scores + padding
        weights = F.softmax(scores, dim=-1)
        return (F.dropout(weights, dropout) if dropout else weights).to(v.dtype) @ v


def build_attend(spec: Transformer, *, causal: bool) -> Attend:
    """One for all blocks."""
    slopes = alibi_slopes(spec.num_heads) if isinstance(spec.position, AlibiPosition) else None
    bias = Bias(causal=causal, window=spec.window, slopes=slopes) if spec.window is not None or slopes is not None else None
    if spec.attention_softcap is not None:
        return Capped(spec.attention_softcap, bias or (Bias(causal=True, window=None, slopes=None) if causal else None))
    if bias is not None:
        return Biased(bias)
    return attend if causal else attend_all


def alibi_slopes(heads: int) -> torch.Tensor:
    """(heads,): 2^(-8 i / n) for the largest power of two n; the heads beyond it lie between those (Press et al. 2022)."""
    most = 2 ** int(math.log2(heads))
    whole = [2 ** (-8 * (i + 1) / most) for i in range(most)]
    between = [2 ** (-4 * (2 * i + 1) / most) for i in range(heads - most)]
    return torch.tensor(whole + between, device="cpu")


class Attention(nn.Module):
    """Self-attention with optional grouped keys and values (Ainslie et al. 2023).

    Heads are counted where they are used, so that a rank may hold some of them. `attend` is replaced where a rank holds only
    a part of each sequence.
    """

    def __init__(self, spec: Transformer, attend: Attend) -> None:
        super().__init__()
        self.width, self.value_width = head_width(spec), spec.value_dim or head_width(spec)
        self.qk_norm, self.dropout = spec.qk_norm, spec.attention_dropout
        self.q = nn.Linear(spec.hidden_size, spec.num_heads * self.width, spec.bias)
        self.k = nn.Linear(spec.hidden_size, spec.kv_heads * self.width, spec.bias)
        self.v = nn.Linear(spec.hidden_size, spec.kv_heads * self.value_width, spec.bias)
        self.out = nn.Linear(spec.num_heads * self.value_width, spec.hidden_size, spec.bias)
        self.attend: Attend = attend

    def forward(self, x: torch.Tensor, rotation: "Rotation | None", padding: torch.Tensor | None = None) -> torch.Tensor:
        x = shared_cast(x)
        q, k, v = (
            part.unflatten(-1, (-1, width)).transpose(1, 2)
            for part, width in ((self.q(x), self.width), (self.k(x), self.width), (self.v(x), self.value_width))
        )
        if self.qk_norm:
            q, k = F.rms_norm(q, (self.width,)), F.rms_norm(k, (self.width,))
        if rotation is not None:
            q, k = rotation(q), rotation(k)
        dropout = self.dropout if self.training else 0.0
        y = self.attend(q, k, v, dropout) if padding is None else self.attend(q, k, v, dropout, padding)
        out: torch.Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Two linear layers around a non-linearity; gated, a third one is scaled by the activated half (Shazeer 2020)."""

    def __init__(self, spec: Transformer) -> None:
        super().__init__()
        self.gate = nn.Linear(spec.hidden_size, spec.inner, spec.bias) if spec.gated_ffn else None
        self.up = nn.Linear(spec.hidden_size, spec.inner, spec.bias)
        self.activation = build_activation(spec.activation)
        self.down = nn.Linear(spec.inner, spec.hidden_size, spec.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = shared_cast(x)
        h = self.activation(self.up(x)) if self.gate is None else self.activation(self.gate(x)) * self.up(x)
        out: torch.Tensor = self.down(h)
        return out


def normed(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Over the last dimension of (B, T, C); batch: each feature over all tokens of the batch."""
    if isinstance(norm, AnyBatchNorm):
        return norm(x.flatten(0, -2)).view_as(x)  # type: ignore[no-any-return]  # modules return Any
    return norm(x)  # type: ignore[no-any-return]  # modules return Any


class Block(nn.Module):
    """(B, T, C) → the same."""

    def __init__(self, spec: Transformer, attend: Attend) -> None:
        super().__init__()
        self.pre = spec.norm_placement == "pre"
        self.attention_norm = build_normalization(spec.normalization, spec.hidden_size)
        self.attention = Attention(spec, attend)
        self.ffn_norm = build_normalization(spec.normalization, spec.hidden_size)
        self.ffn = FeedForward(spec)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x: torch.Tensor, rotation: "Rotation | None", padding: torch.Tensor | None = None) -> torch.Tensor:
        if self.pre:
            x = x + self.dropout(self.attention(normed(self.attention_norm, x), rotation, padding))
            return x + self.dropout(self.ffn(normed(self.ffn_norm, x)))  # type: ignore[no-any-return]  # modules return Any
        x = normed(self.attention_norm, x + self.dropout(self.attention(x, rotation, padding)))
        return normed(self.ffn_norm, x + self.dropout(self.ffn(x)))


class Rotation:
    """Rotary positions (Su et al. 2021): dimension i of the first half turns with dimension i of the second.

    `places`, (T,): where the tokens stand in their sequence, on a rank that sees only some of them.
    """

    places: torch.Tensor | None = None

    def __init__(self, dim: int, base: float, length: int, scaling: Scaling | None = None) -> None:
        places = torch.arange(length, dtype=torch.float64)
        match scaling:
            case LinearScaling(factor=factor):
                places = places / factor
            case NtkScaling(factor=factor):
                base = base * factor ** (dim / (dim - 2))
            case None:
                pass
            case _:
                assert_never(scaling)
        angles = torch.outer(places, base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim))
        self.dim, self.cos, self.sin = dim, angles.cos().float(), angles.sin().float()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, H, T, K)."""
        if self.cos.device != x.device:
            self.cos, self.sin = self.cos.to(x.device), self.sin.to(x.device)
        seen = slice(x.shape[-2]) if self.places is None else self.places
        cos, sin = self.cos[seen].to(x.dtype), self.sin[seen].to(x.dtype)
        turned, rest = x[..., : self.dim], x[..., self.dim :]
        a, b = turned.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos, rest), dim=-1)


class Sinusoids(nn.Module):
    """Fixed sines (even dimensions) and cosines (odd ones) of the position (Vaswani et al. 2017)."""

    def __init__(self, width: int, base: float, length: int) -> None:
        super().__init__()
        angles = torch.outer(
            torch.arange(length, dtype=torch.float64), base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        )
        table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :width].float()
        self.table: torch.Tensor
        self.register_buffer("table", table, persistent=False)

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        return self.table[positions]


def build_positions(spec: Transformer, length: int) -> tuple[nn.Module | None, Rotation | None]:
    """What is added to embeddings, and what turns queries and keys. Raises SpecProblem for what does not fit."""
    match spec.position:
        case LearnedPosition(max_length=rows):
            if rows is not None and rows < length:
                raise SpecProblem(f"model.position.max_length: {rows} rows are fewer than data.sequence.length, {length}")
            return nn.Embedding(rows or length, spec.hidden_size), None
        case SinusoidalPosition():
            return Sinusoids(spec.hidden_size, spec.position.base, length), None
        case RotaryPosition():
            width = head_width(spec)
            dim, least = spec.position.dim or width, 4 if isinstance(spec.position.scaling, NtkScaling) else 2
            if dim % 2 or not least <= dim <= width:
                raise SpecProblem(f"model.position.dim: {dim} must be even, at least {least} and at most key_dim, {width}")
            with torch.device("cpu"):  # a table, not a parameter: it exists even where the model is only counted
                return None, Rotation(dim, spec.position.base, length, spec.position.scaling)
        case AlibiPosition():
            return None, None
        case _:
            assert_never(spec.position)


def head_width(spec: Transformer) -> int:
    """key_dim, or what hidden_size gives each head. Raises SpecProblem when heads do not divide."""
    if spec.num_heads % spec.kv_heads:
        raise SpecProblem(f"model.num_kv_heads: {spec.num_kv_heads} does not divide num_heads {spec.num_heads}")
    if spec.key_dim is None and spec.hidden_size % spec.num_heads:
        raise SpecProblem(
            f"model.num_heads: {spec.num_heads} does not divide hidden_size {spec.hidden_size}; set key_dim or change one"
        )
    return spec.key_width


def build_widening(spec: Transformer) -> nn.Linear | None:
    """From embeddings to the stream, where they differ in width."""
    return None if spec.embedded == spec.hidden_size else nn.Linear(spec.embedded, spec.hidden_size, bias=False)


def branch_ends(blocks: nn.ModuleList) -> list[nn.Linear]:
    """The last projections of all residual branches."""
    return [end for block in blocks for end in (block.attention.out, block.ffn.down)]  # type: ignore[union-attr, misc]  # blocks are Blocks
