"""What a trained model teaches the one in training. Built by `worker.trainer.training.distillation`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Fraction, Knob, Natural, Positive, Spec

JobRef = Annotated[str, Field(pattern=r"^job_[A-Za-z0-9]{1,60}$")]
ModulePath = Annotated[str, Field(min_length=1, max_length=200)]


class Teacher(Spec):
    """A model that a job of this project has finished."""

    job: Annotated[JobRef, Knob(rows=("TRAIN-12",))]
    """Id of the job; it must have succeeded, and its data must be what this job learns from in shape and classes."""
    checkpoint: Annotated[Literal["best", "last"] | Natural, Knob("optimizer steps", rows=("TRAIN-12",))] = "best"
    """Which of its checkpoints: the best, the last, or that of a step; at submit it becomes the step that it stands for."""


class LayerPair(Spec):
    """A layer of the student that is to say what a layer of the teacher says."""

    student: Annotated[ModulePath, Knob(rows=("TRAIN-12",))]
    """Module of the student by its dotted path, as the names of its weights begin."""
    teacher: Annotated[ModulePath, Knob(rows=("TRAIN-12",))]
    """Module of the teacher, whose output has the same shape."""
    weight: Annotated[Positive, Knob("factor", ("quality",), ("TRAIN-12",))] = 1.0
    """What the mean squared difference of their outputs is multiplied by."""


class Distillation(Spec):
    """Learn from the teacher's softened probabilities beside the targets (Hinton et al. 2015)."""

    teacher: Teacher
    """Who teaches."""
    temperature: Annotated[Positive, Knob(affects=("quality",), rows=("TRAIN-12",))] = 2.0
    """Logits of both are divided by it; the divergence is multiplied by its square, so that gradients keep their size."""
    alpha: Annotated[Fraction, Knob("share", ("quality",), ("TRAIN-12",))] = 0.5
    """Share of the teacher in the loss; the rest is that of the targets."""
    layer_map: Annotated[
        Annotated[tuple[LayerPair, ...], Field(max_length=100)], Knob(affects=("quality", "speed"), rows=("TRAIN-12",))
    ] = ()
    """Layers of the student that also learn to say what layers of the teacher say."""
