"""What is trained. Built by `worker.trainer.model`."""

from typing import Annotated

from pydantic import Field

from stoker.spec.model.cnn import CNN
from stoker.spec.model.gan import GAN
from stoker.spec.model.hf import HF
from stoker.spec.model.layers import Layers
from stoker.spec.model.mlp import MLP
from stoker.spec.model.recurrent import GRU, LSTM, RNN
from stoker.spec.model.transformer import Transformer
from stoker.spec.model.transformer_decoder import TransformerDecoder
from stoker.spec.model.transformer_encoder import TransformerEncoder

Model = Annotated[
    MLP | Layers | CNN | RNN | LSTM | GRU | TransformerDecoder | TransformerEncoder | GAN | HF, Field(discriminator="type")
]

__all__ = [
    "CNN",
    "GAN",
    "GRU",
    "HF",
    "LSTM",
    "MLP",
    "RNN",
    "Layers",
    "Model",
    "Transformer",
    "TransformerDecoder",
    "TransformerEncoder",
]
