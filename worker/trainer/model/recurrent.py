"""Recurrent specs into modules. Shapes: B sequences, T steps, F features or embedding, W width of a layer's output, V vocabulary."""

import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import assert_never

import torch
from torch import nn
from torch.nn import functional as F

from stoker.spec.model.recurrent import GRU, LSTM, RNN
from worker.trainer.errors import SpecProblem
from worker.trainer.model.lstm_format import lstm_format
from worker.trainer.model.parts import initialize

State = tuple[torch.Tensor, ...] | None
"""What a recurrent model remembers: (layers x directions, B, units), two of them for an LSTM; None for nothing yet."""


@dataclass
class Course:
    """How a forward pass begins, and what it leaves behind: the part of truncated backpropagation that the model plays."""

    state: State
    """The memory to begin with; no gradient goes back through it."""
    note: int
    """Steps after which the memory is noted, for the pass that begins there."""
    blind: int = 0
    """First steps that are taken without gradients."""
    counted: int | None = None
    """Last steps whose outputs are wanted; None for all."""
    noted: State = None
    """The memory after `note` steps, without its history."""


class Recurrent(nn.Module):
    """(B, T) ids → (B, T, V) logits for text; (B, T, F) or (B, T) numbers → (B, outputs) from the end of the sequence.

    With a `vocabulary`, (B, T) ids → (B, outputs) from the end of each text: what comes after is `padding`, by default its last token.
    """

    def __init__(
        self,
        spec: RNN | LSTM | GRU,
        shape: tuple[int, ...],
        outputs: int,
        *,
        text: bool,
        vocabulary: int | None = None,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        self.width, self.bidirectional = spec.width, spec.bidirectional
        features = (spec.embedding_size or spec.hidden_size) if text else (shape[1] if len(shape) == 2 else 1)
        self.tokens = nn.Embedding(vocabulary or outputs, features) if text else None
        self.padding = None if vocabulary is None else vocabulary - 1 if padding is None else padding
        self.layers = recurrent_layers(spec, features)
        tied = text and spec.tie_embeddings and vocabulary is None
        self.head = None if tied else nn.Linear(spec.width, outputs, bias=spec.bias and (not text or vocabulary is not None))
        self.course: Course | None = None
        """Set while a pass is one window of a longer sequence."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        x = inputs if self.tokens is None else self.tokens(inputs)
        said = self._read(x if x.dim() == 3 else x.unsqueeze(-1))
        if self.padding is not None:
            said = said[torch.arange(len(inputs), device=inputs.device), last_of(inputs, self.padding)]
        elif self.tokens is None:
            said = self._end(said)
        out: torch.Tensor = self.head(said) if self.head is not None else F.linear(said, self._embedding())
        return out

    def _read(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, F) → (B, T, W), or its last steps; begins where the course says and notes the memory for it."""
        with lstm_format(self.layers, x):
            return self._read_in_course(x, self.course)

    def _read_in_course(self, x: torch.Tensor, course: Course | None) -> torch.Tensor:
        if course is None:
            said: torch.Tensor = self.layers(x)[0]
            return said
        state, parts = course.state, []
        for start, stop in pairwise(sorted({0, course.blind, course.note, x.shape[1]})):
            with torch.no_grad() if stop <= course.blind else nullcontext():
                said, memory = self.layers(x[:, start:stop], _packed(state))
            state = memory if isinstance(memory, tuple) else (memory,)
            if stop == course.note:
                course.noted = tuple(part.detach() for part in state)
            parts.append(said)
        said = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return said if course.counted is None else said[:, -course.counted :]

    def _end(self, said: torch.Tensor) -> torch.Tensor:
        """What each direction says once it has read everything: (B, W)."""
        if not self.bidirectional:
            return said[:, -1]
        half = self.width // 2
        return torch.cat((said[:, -1, :half], said[:, 0, half:]), -1)

    def _embedding(self) -> torch.Tensor:
        assert self.tokens is not None, "only a model of text ties its head"
        return self.tokens.weight


def last_of(ids: torch.Tensor, padding: int) -> torch.Tensor:
    """(B,): place of the last token of each text of (B, T) that is no padding; 0 for a text without any."""
    return (ids != padding).sum(1).sub(1).clamp(min=0)


def _packed(state: State) -> torch.Tensor | tuple[torch.Tensor, ...] | None:
    """As torch's layers take it: a tensor alone unless there are two."""
    return state[0] if state is not None and len(state) == 1 else state


def recurrent_layers(spec: RNN | LSTM | GRU, features: int) -> nn.RNNBase:
    """(B, T, F) → (B, T, W) and the memory at the end."""
    dropout = spec.dropout if spec.num_layers > 1 else 0.0  # between layers; with one there is no place for it
    match spec:
        case RNN():
            return nn.RNN(
                features,
                spec.hidden_size,
                spec.num_layers,
                nonlinearity=spec.nonlinearity,
                bias=spec.bias,
                batch_first=True,
                dropout=dropout,
                bidirectional=spec.bidirectional,
            )
        case LSTM():
            if spec.proj_size is not None:
                warnings.filterwarnings("ignore", message="LSTM with projections is not supported with oneDNN")
            return nn.LSTM(
                features,
                spec.hidden_size,
                spec.num_layers,
                bias=spec.bias,
                batch_first=True,
                dropout=dropout,
                bidirectional=spec.bidirectional,
                proj_size=spec.proj_size or 0,
            )
        case GRU():
            return nn.GRU(
                features,
                spec.hidden_size,
                spec.num_layers,
                bias=spec.bias,
                batch_first=True,
                dropout=dropout,
                bidirectional=spec.bidirectional,
            )
        case _:
            assert_never(spec)


def build_recurrent(
    spec: RNN | LSTM | GRU,
    shape: tuple[int, ...],
    outputs: int,
    *,
    text: bool,
    vocabulary: int | None = None,
    padding: int | None = None,
) -> nn.Module:
    """For samples of (steps,) token ids, or of (steps, features) or (steps,) numbers. Raises SpecProblem naming what does not fit."""
    _check(spec, shape, text)
    model = Recurrent(spec, shape, outputs, text=text, vocabulary=vocabulary, padding=padding)
    initialize(model, spec.init)
    open_forget_gates(model.layers, spec)
    return model


def _check(spec: RNN | LSTM | GRU, shape: tuple[int, ...], text: bool) -> None:
    if not text and len(shape) > 2:
        raise SpecProblem(
            f"model.type: {spec.type} reads (steps, features), not samples of shape {shape}; use layers for pictures"
        )
    if text and spec.bidirectional:
        raise SpecProblem("model.bidirectional: no direction of a text may see what comes after; set it to false")
    if spec.tie_embeddings and spec.width != (spec.embedding_size or spec.hidden_size):
        raise SpecProblem(f"model.tie_embeddings: the last layer says {spec.width} numbers; set embedding_size to that")
    if isinstance(spec, LSTM) and spec.proj_size is not None and spec.proj_size >= spec.hidden_size:
        raise SpecProblem(f"model.proj_size: {spec.proj_size} must be below hidden_size {spec.hidden_size}")


def open_forget_gates(layers: nn.RNNBase, spec: RNN | LSTM | GRU) -> None:
    """Where an LSTM says so. Torch keeps two biases per gate, in the order input, forget, cell, output; their sum is the bias."""
    if not isinstance(spec, LSTM) or spec.forget_bias is None:
        return
    gate = slice(spec.hidden_size, 2 * spec.hidden_size)
    for name, param in layers.named_parameters():
        if "bias" in name:
            with torch.no_grad():
                param[gate].fill_(spec.forget_bias if "bias_ih" in name else 0.0)
