"""When and by what a run is judged. Built by `worker.trainer.evaluation`."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from stoker.spec.base import Count, Duration, Fraction, Knob, NonNegative, Positive, Spec

Average = Literal["macro", "micro", "weighted"]
Mode = Literal["min", "max"]


class Metric(Spec):
    """A measurement of predictions against targets."""

    mode: ClassVar[Mode] = "max"
    """Whether smaller or larger is better."""
    type: str
    """Which metric this is."""

    @property
    def key(self) -> str:
        """Its name in the stream, without the split: `accuracy`, `accuracy_top5`, `f1_micro`."""
        return self.type


class Accuracy(Metric):
    """Share of samples whose class is right, or among the k likeliest."""

    type: Literal["accuracy"] = "accuracy"
    """Which metric this is."""
    top_k: Annotated[Annotated[int, Field(ge=1, le=1000)], Knob("classes", rows=("EVAL-02",))] = 1
    """How many of the likeliest classes may be right; above 1 the key is accuracy_top<k>."""

    @property
    def key(self) -> str:
        return "accuracy" if self.top_k == 1 else f"accuracy_top{self.top_k}"


class PrecisionScore(Metric):
    """Of what was called a class, the share that is."""

    type: Literal["precision"] = "precision"
    """Which metric this is."""
    average: Annotated[Average, Knob(rows=("EVAL-03",))] = "macro"
    """How classes are combined; macro has the bare key, others add `_<average>`."""

    @property
    def key(self) -> str:
        return self.type if self.average == "macro" else f"{self.type}_{self.average}"


class Recall(Metric):
    """Of what is a class, the share that was called so."""

    type: Literal["recall"] = "recall"
    """Which metric this is."""
    average: Annotated[Average, Knob(rows=("EVAL-04",))] = "macro"
    """How classes are combined; macro has the bare key, others add `_<average>`."""

    @property
    def key(self) -> str:
        return self.type if self.average == "macro" else f"{self.type}_{self.average}"


class F1(Metric):
    """Harmonic mean of precision and recall."""

    type: Literal["f1"] = "f1"
    """Which metric this is."""
    average: Annotated[Average, Knob(rows=("EVAL-05",))] = "macro"
    """How classes are combined; macro has the bare key, others add `_<average>`."""

    @property
    def key(self) -> str:
        return self.type if self.average == "macro" else f"{self.type}_{self.average}"


class Auroc(Metric):
    """Area under the receiver operating characteristic, one class against the rest."""

    type: Literal["auroc"] = "auroc"
    """Which metric this is."""


class Mae(Metric):
    """Mean absolute error."""

    mode: ClassVar[Mode] = "min"

    type: Literal["mae"] = "mae"
    """Which metric this is."""


class Rmse(Metric):
    """Root of the mean squared error."""

    mode: ClassVar[Mode] = "min"

    type: Literal["rmse"] = "rmse"
    """Which metric this is."""


class R2(Metric):
    """Share of the variance explained."""

    type: Literal["r2"] = "r2"
    """Which metric this is."""


class Perplexity(Metric):
    """Exponential of the mean loss per token."""

    mode: ClassVar[Mode] = "min"

    type: Literal["perplexity"] = "perplexity"
    """Which metric this is."""


class BitsPerByte(Metric):
    """Loss in bits per byte of text, comparable between tokenizers."""

    mode: ClassVar[Mode] = "min"

    type: Literal["bits_per_byte"] = "bits_per_byte"
    """Which metric this is."""


class MaximumMeanDiscrepancy(Metric):
    """Squared distance of generated from real samples under a Gaussian kernel (Gretton et al. 2012): about 0 for the same distribution."""

    mode: ClassVar[Mode] = "min"

    type: Literal["mmd"] = "mmd"
    """Which metric this is."""
    bandwidth: Annotated[Positive | None, Knob(rows=("ARCH-24",))] = None
    """Distance over which the kernel falls by a factor of root e; unset, the median distance of real samples."""
    samples: Annotated[Annotated[int, Field(ge=2, le=20_000)], Knob("samples", ("memory", "speed"), ("ARCH-24",))] = 1000
    """Samples of each kind that are compared at most, each with each."""


class FrechetDistance(Metric):
    """Squared Fréchet distance of two normal distributions, with the means and covariances of generated and of real samples."""

    mode: ClassVar[Mode] = "min"

    type: Literal["frechet_distance"] = "frechet_distance"
    """Which metric this is."""


def _spelled_out(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


AnyMetric = Annotated[
    Accuracy
    | PrecisionScore
    | Recall
    | F1
    | Auroc
    | Mae
    | Rmse
    | R2
    | Perplexity
    | BitsPerByte
    | MaximumMeanDiscrepancy
    | FrechetDistance,
    Field(discriminator="type"),
]
MetricName = Literal[
    "accuracy",
    "precision",
    "recall",
    "f1",
    "auroc",
    "mae",
    "rmse",
    "r2",
    "perplexity",
    "bits_per_byte",
    "mmd",
    "frechet_distance",
]
"""What may stand alone; a test holds it equal to the types above."""

MetricSpec = Annotated[AnyMetric, BeforeValidator(_spelled_out, json_schema_input_type=AnyMetric | MetricName)]
"""A metric by name, or by name with its parameters. The loss is always among those reported."""


class SparsityReport(Spec):
    """Which weights, and which inputs, a run has brought to zero."""

    threshold: Annotated[NonNegative, Knob(rows=("REG-09",))] = 0.0
    """Weights of at most this amount count as zero."""


class FitDiagnosis(Spec):
    """Whether the model fits too much or too little: its losses beside that of the best constant answer.

    A loss explains 1 - loss / that of the best constant answer.
    """

    least: Annotated[Fraction, Knob("share", rows=("REG-10",))] = 0.5
    """Share that the training loss must explain, or the model underfits."""
    gap: Annotated[Fraction, Knob("share", rows=("REG-10",))] = 0.1
    """How much less than that the validation loss may explain, or the model overfits."""
    samples: Annotated[Count, Knob("samples", ("speed",), ("REG-10",))] = 10_000
    """Samples of each split that are judged at most."""


class Evaluation(Spec):
    """Validation during the run, on the validation split; the test split is judged once, at the end."""

    interval: Annotated[Duration, Knob(affects=("speed",), rows=("EVAL-08",))] = Duration(epochs=1)
    """How often validation runs; the end of the run is always evaluated."""
    batches: Annotated[Count | None, Knob("batches", ("speed", "quality"), ("EVAL-08",))] = None
    """How many validation batches at most; unset, all. The test split is always judged whole."""
    batch_size: Annotated[Count | None, Knob("samples", ("memory", "speed"), ("EVAL-08",))] = None
    """Samples per forward pass of one rank; unset, micro_batch_size."""
    metrics: Annotated[
        Annotated[tuple[MetricSpec, ...], Field(max_length=50)] | None, Knob(affects=("speed",), rows=("EVAL-01",))
    ] = None
    """What is measured beside the loss; unset: accuracy, or mae and rmse, or perplexity, or mmd, by task."""
    sparsity_report: Annotated[SparsityReport | None, Knob(rows=("REG-09",))] = None
    """What is said at the end of weights and inputs that are zero; null for nothing."""
    fit_diagnosis: Annotated[FitDiagnosis | None, Knob(affects=("speed",), rows=("REG-10",))] = None
    """Whether to say at the end that the model fits too much or too little; null for not."""
