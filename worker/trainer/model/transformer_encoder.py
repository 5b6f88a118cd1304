"""Encoder specs into modules. Shapes: B sequences, T tokens or steps, F features, C hidden_size, V vocabulary."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from stoker.spec.model.transformer_encoder import TransformerEncoder
from worker.trainer.errors import SpecProblem
from worker.trainer.model.parts import build_activation, build_normalization, initialize, shared_cast
from worker.trainer.model.transformer import Block, branch_ends, build_attend, build_positions, build_widening, normed


class Encoder(nn.Module):
    """(B, T) token ids or (B, T, F) numbers → (B, T, C)."""

    def __init__(self, spec: TransformerEncoder, length: int, vocabulary: int | None, features: int) -> None:
        """`vocabulary`: None where samples are numbers, of which each step has `features`."""
        super().__init__()
        self.length, self.width = length, spec.hidden_size
        self.tokens = None if vocabulary is None else nn.Embedding(vocabulary, spec.embedded)
        self.widen = build_widening(spec) if vocabulary is not None else nn.Linear(features, spec.hidden_size)
        self.positions, self.rotation = build_positions(spec, length)
        self.segments = nn.Embedding(spec.segments, spec.hidden_size) if spec.segments else None
        self.embedding_norm = build_normalization(spec.normalization, spec.hidden_size) if spec.embedding_norm else None
        self.dropout = nn.Dropout(spec.embedding_dropout)
        attend = build_attend(spec, causal=False)
        self.blocks = nn.ModuleList(Block(spec, attend) for _ in range(spec.num_layers))
        self.norm = build_normalization(spec.normalization, spec.hidden_size) if spec.norm_placement == "pre" else None

    def encoded(
        self, inputs: torch.Tensor, segments: torch.Tensor | None = None, hidden: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`segments`, (B, T): which piece of its text each token belongs to; None: all to the first. `hidden`, (B, T): tokens
        that no other one sees.
        """
        x = inputs if self.tokens is None else self.tokens(inputs)
        if self.widen is not None:
            x = self.widen(x)
        if self.positions is not None:
            x = x + self.positions(torch.arange(x.shape[1], device=x.device))
        if self.segments is not None:
            x = x + (self.segments.weight[0] if segments is None else self.segments(segments))
        if self.embedding_norm is not None:
            x = normed(self.embedding_norm, x)
        x = self.dropout(x)
        padding = None if hidden is None else unseen(hidden, x)
        for block in self.blocks:
            x = block(x, self.rotation, padding)
        return x if self.norm is None else normed(self.norm, x)


class MaskedEncoder(Encoder):
    """(B, T) token ids → (B, T, V) logits: which token stands, or stood, at each place."""

    tokens: nn.Embedding

    def __init__(self, spec: TransformerEncoder, length: int, vocabulary: int) -> None:
        super().__init__(spec, length, vocabulary, 0)
        self.transform, self.activation, self.transform_norm = None, None, None
        if spec.head_transform:
            self.transform = nn.Linear(spec.hidden_size, spec.hidden_size, spec.bias)
            self.activation = build_activation(spec.activation)
            self.transform_norm = build_normalization(spec.normalization, spec.hidden_size)
        self.head = None if spec.tie_embeddings else nn.Linear(spec.hidden_size, vocabulary, bias=False)
        self.head_bias = nn.Parameter(torch.zeros(vocabulary)) if spec.head_transform else None

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return F.linear(self.hidden(ids), *self.projection())

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """(B, T) token ids → (B, T, D): what the head reads; D is C, or the width of the embedding where that is the head."""
        x = self.encoded(ids)
        if self.transform is not None and self.activation is not None and self.transform_norm is not None:
            x = normed(self.transform_norm, self.activation(self.transform(x)))
        return F.linear(x, self.widen.weight.t()) if self.widen is not None and self.head is None else x

    def projection(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What makes logits of `hidden`: weight (V, D) and bias (V,), if any."""
        return (self.tokens.weight if self.head is None else self.head.weight), self.head_bias


class PooledEncoder(Encoder):
    """(B, T) token ids or (B, T, F) numbers → (B, outputs): classes or numbers of the whole sequence.

    A token of the vocabulary, by default the last, is padding: it changes nothing that is said of a text.
    """

    def __init__(
        self,
        spec: TransformerEncoder,
        length: int,
        vocabulary: int | None,
        features: int,
        outputs: int,
        padding: int | None = None,
    ) -> None:
        super().__init__(spec, length, vocabulary, features)
        self.padding = None if vocabulary is None else vocabulary - 1 if padding is None else padding
        self.first = spec.pooling == "first"
        self.pooler = nn.Linear(spec.hidden_size, spec.hidden_size, spec.bias) if spec.pooler else None
        self.head = nn.Linear(spec.hidden_size, outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = None if self.padding is None else padding_of(inputs, self.padding)
        x = self.encoded(inputs, hidden=hidden)
        x = x[:, 0] if self.first else pooled(x, hidden)
        out: torch.Tensor = self.head(x if self.pooler is None else torch.tanh(self.pooler(x)))
        return out


def padding_of(ids: torch.Tensor, padding: int) -> torch.Tensor:
    """(B, T): where ids are padding. The first token never is, so that something is seen of an empty text."""
    hidden = ids == padding
    hidden[:, 0] = False
    return hidden


def unseen(hidden: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(B, T) → (B, 1, 1, T): what is added to scores, in the format of the products."""
    scores = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill(hidden, -math.inf)
    return shared_cast(scores)[:, None, None]


def pooled(x: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
    """(B, T, C) → (B, C): the mean of what is not hidden."""
    if hidden is None:
        return x.mean(1)
    return x.masked_fill(hidden[..., None], 0.0).sum(1) / (~hidden).sum(1, keepdim=True)


def build_transformer_encoder(
    spec: TransformerEncoder,
    shape: tuple[int, ...],
    outputs: int,
    *,
    text: bool,
    vocabulary: int | None = None,
    padding: int | None = None,
) -> nn.Module:
    """For text that is to be filled in, `outputs` is the vocabulary; for text in classes, `vocabulary` is given beside them.

    Raises SpecProblem for fields that do not go together.
    """
    model: MaskedEncoder | PooledEncoder
    if text and vocabulary is None:
        model = MaskedEncoder(spec, shape[0], outputs)
    elif text:
        model = PooledEncoder(spec, shape[0], vocabulary, 0, outputs, padding)
    elif len(shape) == 2:
        model = PooledEncoder(spec, shape[0], None, shape[1], outputs)
    else:
        raise SpecProblem(f"model.type: a transformer_encoder reads text, or sequences of (steps, features), not {shape}")
    initialize(model, spec.init, branch_ends(model.blocks))
    return model
