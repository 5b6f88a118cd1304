"""A loss whose logits are made for a few tokens at a time, and again on the way back: all of them are never there at once."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from stoker.spec.loss import CrossEntropy, Loss
from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.objective import Objective


class Chunked(Objective):
    """While it learns, the model's forward pass ends in the loss instead of logits; whatever a strategy hooks onto that pass,
    to bring weights together for it and for its way back, works as before. The model itself still gives logits.
    """

    def __init__(self, model: nn.Module, loss: nn.Module, tokens: int) -> None:
        """`tokens`: whose logits are there at once. Raises SpecProblem for a model that does not tell its head apart."""
        super().__init__(model, loss)
        if not hasattr(model, "hidden") or not hasattr(model, "projection"):
            raise SpecProblem("loss.chunk_tokens: only a transformer tells its last hidden states and its head apart; remove it")
        self._tokens = tokens
        self._cap: float | None = getattr(model, "final_softcap", None)
        self._targets: torch.Tensor | None = None
        self._decoder: Any = model  # its methods `hidden` and `projection` are not those of every module
        self._logits = model.forward
        model.forward = self._ended

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if inputs.shape[0] == 0:
            return super().forward(inputs, targets)
        self._targets = targets
        try:
            out: torch.Tensor = self.model(inputs)
        finally:
            self._targets = None
        return out

    def _ended(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits, or the loss where there are targets."""
        if self._targets is None:
            return self._logits(ids)  # type: ignore[no-any-return]  # modules return Any
        stream = self._decoder.hidden(ids).flatten(0, -2)
        weight, bias = self._decoder.projection()
        total = torch.zeros((), device=stream.device)
        pieces = zip(torch.split(stream, self._tokens), torch.split(self._targets.flatten(), self._tokens), strict=True)
        for piece, wanted in pieces:
            total = total + checkpoint(self._part, piece, wanted, weight, bias, use_reentrant=False, preserve_rng_state=False)
        return total

    def _part(self, stream: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        logits = nn.functional.linear(stream, weight, bias).float()
        if self._cap is not None:
            logits = self._cap * torch.tanh(logits / self._cap)  # as the model does
        out: torch.Tensor = self.loss(logits, targets)
        return out


def in_chunks(spec: Loss | None, objective: Objective) -> Objective:
    """The same objective, with the logits of a few tokens at a time where that is asked for."""
    match spec:
        case CrossEntropy(chunk_tokens=int() as tokens):
            return Chunked(objective.model, objective.loss, tokens)
        case _:
            return objective
