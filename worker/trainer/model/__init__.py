"""Model specs into modules."""

from typing import assert_never

from torch import nn

from stoker.spec.model import GRU, LSTM, MLP, RNN, Layers, Model, TransformerDecoder, TransformerEncoder
from worker.trainer.model.layers import build_layers
from worker.trainer.model.mlp import build_mlp
from worker.trainer.model.recurrent import build_recurrent
from worker.trainer.model.transformer_decoder import build_transformer_decoder
from worker.trainer.model.transformer_encoder import build_transformer_encoder

__all__ = ["build_model"]


def build_model(spec: Model, shape: tuple[int, ...], outputs: int, *, text: bool) -> nn.Module:
    """The architecture for samples of a shape; for `text`, shape is (length,) and outputs the vocabulary.

    Works under `torch.device("meta")`. Raises SpecProblem naming the field that does not fit.
    """
    match spec:
        case MLP():
            return build_mlp(spec, shape, outputs)
        case Layers():
            return build_layers(spec, shape, outputs)
        case RNN() | LSTM() | GRU():
            return build_recurrent(spec, shape, outputs, text=text)
        case TransformerDecoder():
            return build_transformer_decoder(spec, shape[0], outputs)
        case TransformerEncoder():
            return build_transformer_encoder(spec, shape, outputs, text=text)
        case _:
            assert_never(spec)
