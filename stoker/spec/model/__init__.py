"""What is trained. Built by `worker.trainer.model`."""

from typing import Annotated

from pydantic import Field

from stoker.spec.model.layers import Layers
from stoker.spec.model.mlp import MLP
from stoker.spec.model.recurrent import GRU, LSTM, RNN
from stoker.spec.model.transformer_decoder import TransformerDecoder

Model = Annotated[MLP | Layers | RNN | LSTM | GRU | TransformerDecoder, Field(discriminator="type")]

__all__ = ["GRU", "LSTM", "MLP", "RNN", "Layers", "Model", "TransformerDecoder"]
