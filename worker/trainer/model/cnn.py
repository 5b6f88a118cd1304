"""Convolutional networks into modules: stacks of layers."""

from torch import nn

from stoker.spec.model.cnn import CNN
from stoker.spec.model.shapes import Form, Shape
from worker.trainer.model.layers import build_stack


def build_cnn(spec: CNN, shape: Shape, outputs: int) -> nn.Module:
    """(batch, *shape) → (batch, outputs). Raises SpecProblem for samples that are no pictures."""
    return build_stack(spec.stack(outputs), Form(shape), (outputs,), None, spec.init)
