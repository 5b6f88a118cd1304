"""Recurrent networks: one state, moved along a sequence. Built by `worker.trainer.model.recurrent`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Depth, Knob, Rate, Size, Spec
from stoker.spec.model.parts import Init, TorchInit
from stoker.spec.model.sharing import Share

Bias = Annotated[float, Field(ge=-100, le=100)]


class Recurrent(Spec):
    """Of text: a token embedding, recurrent layers, a vocabulary head at every token. Of sequences of numbers, (steps, features):
    recurrent layers, and a head on what they know at the end."""

    num_layers: Annotated[Depth, Knob("layers", ("memory", "speed", "quality"), ("ARCH-02", "ARCH-09", "ARCH-10"))] = 1
    """Recurrent layers, each reading what the one below says at every step."""
    hidden_size: Annotated[Size, Knob("units", ("memory", "speed", "quality"), ("ARCH-03", "ARCH-09", "ARCH-10"))] = 128
    """Width of each layer's state, in each direction."""
    embedding_size: Annotated[Size | None, Knob("units", ("memory", "speed", "quality"), ("ARCH-03",))] = None
    """Width of the token embedding, for text only; unset, hidden_size."""
    bidirectional: Annotated[bool, Knob(affects=("memory", "speed", "quality"), rows=("ARCH-09", "ARCH-10"))] = False
    """Read the sequence in both directions, each with weights of its own; not for causal_lm, which must not see what comes."""
    dropout: Annotated[Rate, Knob("probability", ("quality",), ("REG-05",))] = 0.0
    """Dropout on what one layer hands to the next."""
    bias: Annotated[bool, Knob(affects=("memory",), rows=("ARCH-05",))] = True
    """Give recurrent layers and the head a bias; a vocabulary head never has one."""
    tie_embeddings: Annotated[bool, Knob(affects=("memory", "quality"), rows=("ARCH-25",))] = False
    """Use the token embedding as the vocabulary head; its width must be that of the last layer."""
    sharing: Annotated[
        Annotated[tuple[Share, ...], Field(max_length=100)], Knob(affects=("memory", "quality"), rows=("ARCH-25",))
    ] = ()
    """Parts that use the weights of other parts."""
    init: Annotated[Init, Knob(affects=("quality",), rows=("INIT-01",))] = TorchInit()
    """How weights start."""

    @property
    def directions(self) -> int:
        """Ways in which each layer reads."""
        return 2 if self.bidirectional else 1

    @property
    def says(self) -> int:
        """Width of what one direction of a layer says at each step."""
        return self.hidden_size

    @property
    def width(self) -> int:
        """Width of what a layer says at each step."""
        return self.directions * self.says


class RNN(Recurrent):
    """The plain recurrence (Elman 1990)."""

    type: Literal["rnn"] = "rnn"
    """Which architecture this is."""
    nonlinearity: Annotated[Literal["tanh", "relu"], Knob(affects=("quality",), rows=("ARCH-09",))] = "tanh"
    """What bends the sum of input and state."""


class LSTM(Recurrent):
    """Long short-term memory: gates decide what is kept, added and said (Hochreiter and Schmidhuber 1997)."""

    type: Literal["lstm"] = "lstm"
    """Which architecture this is."""
    proj_size: Annotated[Size | None, Knob("units", ("memory", "speed", "quality"), ("ARCH-10",))] = None
    """Width that the state is projected to before anyone reads it (Sak et al. 2014), below hidden_size; unset, no projection."""
    forget_bias: Annotated[Bias | None, Knob(affects=("quality",), rows=("ARCH-10",))] = None
    """Where the bias of the forget gate starts, for example 1 to remember at first (Jozefowicz et al. 2015); unset, as init says."""

    @property
    def says(self) -> int:
        return self.proj_size or self.hidden_size


class GRU(Recurrent):
    """Gated recurrent unit: an LSTM with one state and one gate less (Cho et al. 2014)."""

    type: Literal["gru"] = "gru"
    """Which architecture this is."""
