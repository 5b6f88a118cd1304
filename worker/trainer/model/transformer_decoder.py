"""Decoder specs into modules. Shapes: B sequences, T tokens, C hidden_size, V vocabulary."""

import torch
from torch import nn
from torch.nn import functional as F

from stoker.spec.model.transformer_decoder import TransformerDecoder
from worker.trainer.model.parts import build_normalization, initialize
from worker.trainer.model.transformer import (
    Block,
    branch_ends,
    build_attend,
    build_positions,
    build_widening,
    normed,
)
from worker.trainer.runtime.softcap import softcapped


class Decoder(nn.Module):
    """(B, T) token ids → (B, T, V) logits."""

    places: torch.Tensor | None = None
    """(T,): where the tokens stand in their sequence, on a rank that sees only some of them."""

    def __init__(self, spec: TransformerDecoder, length: int, vocabulary: int) -> None:
        super().__init__()
        self.length, self.width, self.final_softcap = length, spec.hidden_size, spec.final_softcap
        self.tokens = nn.Embedding(vocabulary, spec.embedded)
        self.widen = build_widening(spec)
        self.positions, self.rotation = build_positions(spec, length)
        self.dropout = nn.Dropout(spec.embedding_dropout)
        attend = build_attend(spec, causal=True)
        self.blocks = nn.ModuleList(Block(spec, attend) for _ in range(spec.num_layers))
        self.norm = build_normalization(spec.normalization, spec.hidden_size)
        self.head = None if spec.tie_embeddings else nn.Linear(spec.hidden_size, vocabulary, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        weight, bias = self.projection()
        logits = F.linear(self.hidden(ids), weight, bias)
        return logits if self.final_softcap is None else softcapped(logits, self.final_softcap)

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """(B, T) token ids → (B, T, D): what the head reads; D is C, or the width of the embedding where that is the head."""
        x = self.tokens(ids)
        if self.widen is not None:
            x = self.widen(x)
        if self.positions is not None:
            x = x + self.positions(torch.arange(ids.shape[1], device=ids.device) if self.places is None else self.places)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, self.rotation)
        x = normed(self.norm, x)
        return F.linear(x, self.widen.weight.t()) if self.widen is not None and self.head is None else x

    def projection(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What makes logits of `hidden`: weight (V, D) and bias (V,), if any. `final_softcap` bends them afterwards."""
        return (self.tokens.weight if self.head is None else self.head.weight), None

    def place(self, places: torch.Tensor | None) -> None:
        """Say which positions of their sequences this rank's tokens have; None: all, from 0."""
        self.places = places
        if self.rotation is not None:
            self.rotation.places = places


def build_transformer_decoder(spec: TransformerDecoder, length: int, vocabulary: int) -> nn.Module:
    """For contexts of at most `length` tokens. Raises SpecProblem for fields that do not go together."""
    model = Decoder(spec, length, vocabulary)
    initialize(model, spec.init, branch_ends(model.blocks))
    return model
