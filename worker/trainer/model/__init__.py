"""Model specs into modules."""

from typing import assert_never

from torch import nn

from stoker.spec.model import CNN, GAN, GRU, HF, LSTM, MLP, RNN, Layers, Model, TransformerDecoder, TransformerEncoder
from worker.trainer.errors import SpecProblem
from worker.trainer.model.cnn import build_cnn
from worker.trainer.model.gan import GanModel, build_gan
from worker.trainer.model.layers import build_layers
from worker.trainer.model.mlp import build_mlp
from worker.trainer.model.recurrent import build_recurrent
from worker.trainer.model.sharing import share
from worker.trainer.model.transformer_decoder import build_transformer_decoder
from worker.trainer.model.transformer_encoder import build_transformer_encoder

__all__ = ["GanModel", "build_model"]


def build_model(
    spec: Model,
    shape: tuple[int, ...],
    outputs: int,
    *,
    text: bool,
    vocabulary: int | None = None,
    padding: int | None = None,
) -> nn.Module:
    """The architecture for samples of a shape; for `text`, shape is (length,) and outputs the vocabulary,
    unless `vocabulary` is given: then outputs are said of each text, and `padding`, by default the last token of the vocabulary, fills up short ones.

    Works under `torch.device("meta")`. Raises SpecProblem naming the field that does not fit.
    """
    match spec:
        case MLP():
            return share(build_mlp(spec, shape, outputs), spec.sharing)
        case Layers():
            return share(build_layers(spec, shape, outputs, text=text, vocabulary=vocabulary), spec.sharing)
        case CNN():
            return share(build_cnn(spec, shape, outputs), spec.sharing)
        case RNN() | LSTM() | GRU():
            return share(build_recurrent(spec, shape, outputs, text=text, vocabulary=vocabulary, padding=padding), spec.sharing)
        case TransformerDecoder():
            return share(build_transformer_decoder(spec, shape[0], outputs), spec.sharing)
        case TransformerEncoder():
            return share(
                build_transformer_encoder(spec, shape, outputs, text=text, vocabulary=vocabulary, padding=padding), spec.sharing
            )
        case HF():
            raise SpecProblem("model.type: hf becomes the fields of a transformer when a job is submitted; write those")
        case GAN():
            return build_gan(spec, shape)
        case _:
            assert_never(spec)
