"""A BERT-style encoder. Built by `worker.trainer.model.transformer_encoder`."""

from typing import Annotated, Literal

from stoker.spec.base import Knob, Natural
from stoker.spec.model.parts import Init, NormalInit
from stoker.spec.model.transformer import Transformer

EncoderPreset = Literal["bert-base-uncased", "bert-large-uncased", "roberta-base", "roberta-large"]


class TransformerEncoder(Transformer):
    """Every token sees all others. For masked_lm a vocabulary head at every token; for classes or numbers one head on the whole.

    Of sequences of numbers, (steps, features), a linear layer takes the place of the token embedding.
    """

    type: Literal["transformer_encoder"] = "transformer_encoder"
    """Which architecture this is."""
    preset: Annotated[EncoderPreset | None, Knob(rows=("ARCH-26",))] = None
    """Sizes of a published model; its fields are written out when a job is submitted, those given beside it win, and this is null then."""
    segments: Annotated[Natural, Knob("segments", ("memory",), ("ARCH-12",))] = 0
    """Rows of a segment embedding, as BERT's 2, of which a text that is one piece uses the first; 0 for none."""
    embedding_norm: Annotated[bool, Knob(affects=("quality",), rows=("ARCH-12",))] = False
    """Normalise the sum of embeddings before dropout, as BERT does."""
    head_transform: Annotated[bool, Knob(affects=("memory", "quality"), rows=("ARCH-12",))] = False
    """For masked_lm, a layer, the activation and a norm before the vocabulary head, which has a bias then, as BERT does."""
    pooling: Annotated[Literal["first", "mean"], Knob(affects=("quality",), rows=("ARCH-12",))] = "mean"
    """For classes and numbers, what the head reads: the first token, or the mean of all."""
    pooler: Annotated[bool, Knob(affects=("memory", "quality"), rows=("ARCH-12",))] = False
    """For classes and numbers, a layer and tanh between pooling and head, as BERT does."""
    init: Annotated[Init, Knob(affects=("quality",), rows=("INIT-01",))] = NormalInit()
    """How weights start."""
