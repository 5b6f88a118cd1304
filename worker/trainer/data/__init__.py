"""Data specs into samples: read, split, fit the steps on the training part, apply them to all parts."""

from worker.trainer.data.build import Dataset, build_data
from worker.trainer.data.codec import Codec
from worker.trainer.data.description import Answer, Description
from worker.trainer.data.loader import Batch, Feed
from worker.trainer.data.masked import mask
from worker.trainer.data.noise import noise, with_noise
from worker.trainer.data.samples import Samples, TensorSamples
from worker.trainer.data.source import Wanted

__all__ = [
    "Answer",
    "Batch",
    "Codec",
    "Dataset",
    "Description",
    "Feed",
    "Samples",
    "TensorSamples",
    "Wanted",
    "build_data",
    "mask",
    "noise",
    "with_noise",
]
