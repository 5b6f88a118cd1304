"""Data specs into samples in memory: read, split, learn what is learned from the training part, apply it to all."""

from worker.trainer.data.build import Dataset, build_data
from worker.trainer.data.codec import Codec
from worker.trainer.data.description import Answer, Description
from worker.trainer.data.loader import Batch, Feed
from worker.trainer.data.masked import mask
from worker.trainer.data.noise import noise, with_noise
from worker.trainer.data.samples import Samples
from worker.trainer.data.source import Wanted

__all__ = [
    "Answer",
    "Batch",
    "Codec",
    "Dataset",
    "Description",
    "Feed",
    "Samples",
    "Wanted",
    "build_data",
    "mask",
    "noise",
    "with_noise",
]
