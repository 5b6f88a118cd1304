"""Convolutional networks in stages, residual ones (He et al. 2015) among them. Built by `worker.trainer.model.cnn`."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, assert_never

from pydantic import Field

from stoker.spec.base import Count, Knob, Positive, Rate, Size, Spec
from stoker.spec.model.layers import Activate, Conv, Dropout, Extent, Layer, Linear, Norm, Pool, Reshape, Residual
from stoker.spec.model.parts import Activation, BatchNorm, Init, TorchInit
from stoker.spec.model.sharing import Share

USUAL_EXPANSION = 4
Preset = Literal["resnet18", "resnet34", "resnet50", "resnet20-cifar", "resnet56-cifar"]


class GroupNorm(Spec):
    """Normalise each sample over groups of channels, whatever the batch (Wu and He 2018)."""

    type: Literal["group"] = "group"
    """Which normalisation this is."""
    groups: Annotated[Count | None, Knob("groups", ("quality",), ("ARCH-22",))] = None
    """Groups of channels, each normalised apart; unset, the largest divisor of the channels that 32 has too."""
    eps: Annotated[Positive, Knob(affects=("quality",), rows=("ARCH-22",))] = 1e-5
    """Added to the variance before the square root."""
    affine: Annotated[bool, Knob(affects=("memory",), rows=("ARCH-22",))] = True
    """Learn a scale and a shift per channel."""


class Stem(Spec):
    """What a picture goes through before the stages."""

    channels: Annotated[Size, Knob("channels", ("memory", "speed", "quality"), ("ARCH-06",))] = 16
    """Channels that the first convolution gives."""
    kernel_size: Annotated[Extent, Knob("pixels", ("memory", "speed", "quality"), ("ARCH-06",))] = 3
    """Side of its window; half of it is padded."""
    stride: Annotated[Extent, Knob("pixels", ("memory", "speed"), ("ARCH-06",))] = 1
    """Distance between two of its windows."""
    pool: Annotated[bool, Knob(affects=("memory", "speed"), rows=("ARCH-07",))] = False
    """Follow it with a maximum over windows of 3, 2 apart."""


class Stage(Spec):
    """Blocks of equally many channels."""

    channels: Annotated[Size, Knob("channels", ("memory", "speed", "quality"), ("ARCH-03", "ARCH-06"))]
    """Channels within its blocks; a bottleneck block gives `expansion` times as many."""
    blocks: Annotated[Annotated[int, Field(ge=1, le=200)], Knob("blocks", ("memory", "speed", "quality"), ("ARCH-02",))] = 1
    """How many blocks follow one another."""
    stride: Annotated[Extent, Knob("pixels", ("memory", "speed"), ("ARCH-06",))] = 1
    """By how much the first block makes pictures smaller."""


class CNN(Spec):
    """A stem, stages of blocks, the mean over all places, and a linear head."""

    type: Literal["cnn"] = "cnn"
    """Which architecture this is."""
    preset: Annotated[Preset | None, Knob(rows=("ARCH-26",))] = None
    """Sizes of a published model; its fields are written out when a job is submitted, those given beside it win, and this is null then."""
    input_shape: Annotated[
        Annotated[tuple[Size, ...], Field(min_length=2, max_length=3)] | None, Knob("pixels", (), ("ARCH-01",))
    ] = None
    """[channels, height, width] or [channels, length] as which samples of another shape, such as rows of a table, are seen; unset, their own."""
    stem: Annotated[Stem, Knob(affects=("memory", "speed", "quality"), rows=("ARCH-06",))] = Stem()
    """The first convolution."""
    stages: Annotated[
        Annotated[tuple[Stage, ...], Field(min_length=1, max_length=16)],
        Knob("stages", ("memory", "speed", "quality"), ("ARCH-01", "ARCH-02", "ARCH-03")),
    ] = (Stage(channels=16), Stage(channels=32, stride=2), Stage(channels=64, stride=2))
    """The stages, first to last."""
    block: Annotated[Literal["plain", "basic", "bottleneck"], Knob(affects=("memory", "speed", "quality"), rows=("ARCH-06",))] = (
        "basic"
    )
    """plain: one convolution of 3; basic: two of 3 with a way around them; bottleneck: 1, 3 and 1 with a way around them."""
    expansion: Annotated[Count | None, Knob("", ("memory", "speed", "quality"), ("ARCH-06",))] = None
    """How many times as many channels a bottleneck block gives as it has within; bottleneck only; unset, 4."""
    activation: Annotated[Activation, Knob(affects=("quality",), rows=("ARCH-17",))] = "relu"
    """Non-linearity after each normalisation, and after each sum."""
    normalization: Annotated[
        Annotated[BatchNorm | GroupNorm, Field(discriminator="type")] | None,
        Knob(affects=("quality",), rows=("ARCH-21", "ARCH-22")),
    ] = BatchNorm()
    """Normalisation after each convolution; null for none, and biases instead."""
    dropout: Annotated[Rate, Knob("probability", ("quality",), ("REG-05",))] = 0.0
    """Probability that a value is dropped before the head, in training."""
    sharing: Annotated[
        Annotated[tuple[Share, ...], Field(max_length=100)], Knob(affects=("memory", "quality"), rows=("ARCH-25",))
    ] = ()
    """Parts that use the weights of other parts."""
    init: Annotated[Init, Knob(affects=("quality",), rows=("INIT-01",))] = TorchInit()
    """How weights start."""

    def stack(self, outputs: int) -> tuple[Layer, ...]:
        """The layers that it consists of."""
        stem = self.stem
        first = self._conv(stem.channels, stem.kernel_size, stem.stride)
        layers: list[Layer] = [] if self.input_shape is None else [Reshape(shape=self.input_shape)]
        layers += [*first, Activate(kind=self.activation)]
        if stem.pool:
            layers.append(Pool(kind="max", kernel_size=3, stride=2, padding=1))
        layers += self._stages()
        layers.append(Pool(kind="global_avg"))
        if self.dropout > 0:
            layers.append(Dropout(p=self.dropout))
        return (*layers, Linear(units=outputs))

    def _stages(self) -> Iterator[Layer]:
        given = self.stem.channels
        for stage in self.stages:
            said = stage.channels * ((self.expansion or USUAL_EXPANSION) if self.block == "bottleneck" else 1)
            yield from self._block(stage, given, said, stage.stride)
            for _ in range(stage.blocks - 1):
                yield from self._block(stage, said, said, 1)
            given = said

    def _block(self, stage: Stage, given: int, said: int, stride: int) -> tuple[Layer, ...]:
        active, inner = Activate(kind=self.activation), stage.channels
        match self.block:
            case "plain":
                return (*self._conv(said, 3, stride), active)
            case "basic":
                layers = (*self._conv(inner, 3, stride), active, *self._conv(said, 3, 1))
            case "bottleneck":
                layers = (*self._conv(inner, 1, 1), active, *self._conv(inner, 3, stride), active, *self._conv(said, 1, 1))
            case _:
                assert_never(self.block)
        shortcut = self._conv(said, 1, stride) if stride > 1 or given != said else ()
        return Residual(layers=layers, shortcut=shortcut), active

    def _conv(self, channels: int, kernel: int, stride: int) -> tuple[Layer, ...]:
        """With its normalisation, which takes the place of a bias."""
        norm = self.normalization
        conv = Conv(channels=channels, kernel_size=kernel, stride=stride, padding=kernel // 2, bias=norm is None)
        return (conv,) if norm is None else (conv, _norm(norm))


def _norm(spec: BatchNorm | GroupNorm) -> Norm:
    shared: dict[str, Any] = {"kind": spec.type, "eps": spec.eps, "affine": spec.affine}
    match spec:
        case BatchNorm():
            return Norm(**shared, momentum=spec.momentum, track_running_stats=spec.track_running_stats, sync=spec.sync)
        case GroupNorm():
            return Norm(**shared, groups=spec.groups)
        case _:
            assert_never(spec)
