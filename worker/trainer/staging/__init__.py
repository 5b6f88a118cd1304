"""How tensors get to disk and back: files in the safetensors format, written while the run goes on or while it waits."""

from worker.trainer.staging.copied import Copies
from worker.trainer.staging.job import Entry, Job, Written, digest, flush
from worker.trainer.staging.sheet import Sheet
from worker.trainer.staging.stage import Staging, build_staging
from worker.trainer.staging.task import Done, Task
from worker.trainer.staging.tensorfile import Kept, TensorFile

__all__ = [
    "Copies", "Done", "Entry", "Job", "Kept", "Sheet", "Staging", "Task", "TensorFile", "Written", "build_staging", "digest", "flush",
]  # fmt: skip
