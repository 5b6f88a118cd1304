"""The model of a Hugging Face directory. `stoker.document.opened` writes it out before there is a run, as a decoder or an encoder."""

from typing import Annotated, Literal

from stoker.spec.base import DatasetRef, Knob, Rate, Spec
from stoker.spec.model.parts import Init
from stoker.spec.model.sharing import Share


class HF(Spec):
    """A Hugging Face directory of gpt2, llama or bert: its config.json becomes the fields of a transformer when a job is submitted."""

    type: Literal["hf"] = "hf"
    """Which architecture this is."""
    source: Annotated[DatasetRef, Knob("data set", ("memory", "speed", "quality"), ("INIT-07",))]
    """Data set with config.json, *.safetensors and tokenizer.json, by name or `name@version`; without a version the newest at submit."""
    weights: Annotated[bool, Knob(affects=("quality",), rows=("INIT-07",))] = True
    """Start from its weights, as `initialization.start` is written out then; false takes the architecture alone."""
    dropout: Annotated[Rate | None, Knob("probability", ("quality",), ("REG-05",))] = None
    """Dropout on each residual branch; unset, what config.json says."""
    attention_dropout: Annotated[Rate | None, Knob("probability", ("quality",), ("REG-05",))] = None
    """Dropout on attention weights; unset, what config.json says."""
    embedding_dropout: Annotated[Rate | None, Knob("probability", ("quality",), ("REG-05",))] = None
    """Dropout on the sum of token and position embeddings; unset, what config.json says."""
    init: Annotated[Init | None, Knob(affects=("quality",), rows=("INIT-01",))] = None
    """How weights start that are not in the directory; unset, as those of the transformer."""

    @property
    def sharing(self) -> tuple[Share, ...]:
        """Nothing beside what config.json ties."""
        return ()
