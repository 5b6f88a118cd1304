"""Decoder specs into modules. Shapes: B sequences, T tokens, C hidden_size, H heads, K key_dim, V vocabulary."""

from collections.abc import Callable
from typing import assert_never

import torch
from torch import nn
from torch.nn import functional as F

from stoker.spec.model.transformer_decoder import LearnedPosition, RotaryPosition, SinusoidalPosition, TransformerDecoder
from worker.trainer.errors import SpecProblem
from worker.trainer.model.parts import build_activation, build_normalization, initialize, shared_cast

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
"""Queries (B, H, T, K), keys and values of as many heads or fewer, probability of dropout → (B, H, T, K)."""


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float) -> torch.Tensor:
    """Each token to itself and those before it."""
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


class Attention(nn.Module):
    """Causal self-attention with optional grouped keys and values (Ainslie et al. 2023).

    Heads are counted where they are used, so that a rank may hold some of them. `attend` is replaced where a rank holds only
    a part of each sequence.
    """

    def __init__(self, spec: TransformerDecoder) -> None:
        super().__init__()
        heads, shared, self.width = spec.num_heads, spec.num_kv_heads or spec.num_heads, head_width(spec)
        self.qk_norm, self.dropout = spec.qk_norm, spec.attention_dropout
        self.q = nn.Linear(spec.hidden_size, heads * self.width, spec.bias)
        self.k = nn.Linear(spec.hidden_size, shared * self.width, spec.bias)
        self.v = nn.Linear(spec.hidden_size, shared * self.width, spec.bias)
        self.out = nn.Linear(heads * self.width, spec.hidden_size, spec.bias)
        self.attend: Attend = attend

    def forward(self, x: torch.Tensor, rotation: "Rotation | None") -> torch.Tensor:
        x = shared_cast(x)
        q, k, v = (part.unflatten(-1, (-1, self.width)).transpose(1, 2) for part in (self.q(x), self.k(x), self.v(x)))
        if self.qk_norm:
            q, k = F.rms_norm(q, (self.width,)), F.rms_norm(k, (self.width,))
        if rotation is not None:
            q, k = rotation(q), rotation(k)
        y = self.attend(q, k, v, self.dropout if self.training else 0.0)
        out: torch.Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Two linear layers around a non-linearity; gated, a third one is scaled by the activated half (Shazeer 2020)."""

    def __init__(self, spec: TransformerDecoder) -> None:
        super().__init__()
        width = spec.ffn_size or 4 * spec.hidden_size
        self.gate = nn.Linear(spec.hidden_size, width, spec.bias) if spec.gated_ffn else None
        self.up = nn.Linear(spec.hidden_size, width, spec.bias)
        self.activation = build_activation(spec.activation)
        self.down = nn.Linear(width, spec.hidden_size, spec.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = shared_cast(x)
        h = self.activation(self.up(x)) if self.gate is None else self.activation(self.gate(x)) * self.up(x)
        out: torch.Tensor = self.down(h)
        return out


class Block(nn.Module):
    def __init__(self, spec: TransformerDecoder) -> None:
        super().__init__()
        self.pre = spec.norm_placement == "pre"
        self.attention_norm = build_normalization(spec.normalization, spec.hidden_size)
        self.attention = Attention(spec)
        self.ffn_norm = build_normalization(spec.normalization, spec.hidden_size)
        self.ffn = FeedForward(spec)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x: torch.Tensor, rotation: "Rotation | None") -> torch.Tensor:
        if self.pre:
            x = x + self.dropout(self.attention(self.attention_norm(x), rotation))
            return x + self.dropout(self.ffn(self.ffn_norm(x)))  # type: ignore[no-any-return]  # modules return Any
        x = self.attention_norm(x + self.dropout(self.attention(x, rotation)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))  # type: ignore[no-any-return]  # modules return Any


class Rotation:
    """Rotary positions (Su et al. 2021): dimension i of the first half turns with dimension i of the second.

    `places`, (T,): where the tokens stand in their sequence, on a rank that sees only some of them.
    """

    places: torch.Tensor | None = None

    def __init__(self, dim: int, base: float, length: int) -> None:
        angles = torch.outer(
            torch.arange(length, dtype=torch.float64), base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        )
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


class Decoder(nn.Module):
    """(B, T) token ids → (B, T, V) logits."""

    places: torch.Tensor | None = None
    """(T,): where the tokens stand in their sequence, on a rank that sees only some of them."""

    def __init__(self, spec: TransformerDecoder, length: int, vocabulary: int) -> None:
        super().__init__()
        self.length = length
        self.tokens = nn.Embedding(vocabulary, spec.hidden_size)
        self.positions, self.rotation = _positions(spec, length)
        self.dropout = nn.Dropout(spec.embedding_dropout)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.num_layers))
        self.norm = build_normalization(spec.normalization, spec.hidden_size)
        self.head = None if spec.tie_embeddings else nn.Linear(spec.hidden_size, vocabulary, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        weight, bias = self.projection()
        return F.linear(self.hidden(ids), weight, bias)

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """(B, T) token ids → (B, T, C): what the head reads."""
        x = self.tokens(ids)
        if self.positions is not None:
            x = x + self.positions(torch.arange(ids.shape[1], device=ids.device) if self.places is None else self.places)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, self.rotation)
        return self.norm(x)  # type: ignore[no-any-return]  # modules return Any

    def projection(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What makes logits of `hidden`: weight (V, C) and bias (V,), if any."""
        return (self.tokens.weight if self.head is None else self.head.weight), None

    def place(self, places: torch.Tensor | None) -> None:
        """Say which positions of their sequences this rank's tokens have; None: all, from 0."""
        self.places = places
        if self.rotation is not None:
            self.rotation.places = places


def _positions(spec: TransformerDecoder, length: int) -> tuple[nn.Module | None, Rotation | None]:
    match spec.position:
        case LearnedPosition():
            return nn.Embedding(length, spec.hidden_size), None
        case SinusoidalPosition():
            return Sinusoids(spec.hidden_size, spec.position.base, length), None
        case RotaryPosition():
            width = head_width(spec)
            dim = spec.position.dim or width
            if dim % 2 or dim > width:
                raise SpecProblem(f"model.position.dim: {dim} must be even and at most key_dim, {width}")
            with torch.device("cpu"):  # a table, not a parameter: it exists even where the model is only counted
                return None, Rotation(dim, spec.position.base, length)
        case _:
            assert_never(spec.position)


def head_width(spec: TransformerDecoder) -> int:
    """key_dim, or what hidden_size gives each head. Raises SpecProblem when it does not divide."""
    if spec.key_dim is not None:
        return spec.key_dim
    if spec.hidden_size % spec.num_heads:
        raise SpecProblem(
            f"model.num_heads: {spec.num_heads} does not divide hidden_size {spec.hidden_size}; set key_dim or change one"
        )
    return spec.hidden_size // spec.num_heads


def build_transformer_decoder(spec: TransformerDecoder, length: int, vocabulary: int) -> nn.Module:
    """For contexts of at most `length` tokens. Raises SpecProblem when heads do not divide."""
    if spec.num_heads % (spec.num_kv_heads or spec.num_heads):
        raise SpecProblem(f"model.num_kv_heads: {spec.num_kv_heads} does not divide num_heads {spec.num_heads}")
    model = Decoder(spec, length, vocabulary)
    ends = [m for block in model.blocks for m in (block.attention.out, block.ffn.down)]  # type: ignore[union-attr]  # blocks are Blocks
    initialize(model, spec.init, ends)  # type: ignore[arg-type]  # both are Linear
    return model
