"""Smaller micro-batches for the attempt after one that ran out of memory.

The spec stays what the user submitted. The global batch stays too: half the micro-batch, twice the accumulation.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

from stoker.facts import DatasetFacts
from stoker.spec import JobSpec
from stoker.spec.derived.arithmetic import batch_of
from stoker.spec.rules import check

OUT_OF_MEMORY = ("cuda_oom", "host_oom")
MOST = 4
"""How often the micro-batch of a job is halved; after that, running out of memory is a failure like any other."""


class SmallerBatches(BaseModel):
    """How attempts divide the batch, instead of as the spec says."""

    model_config = ConfigDict(frozen=True, strict=True)

    micro_batch_size: int
    gradient_accumulation_steps: int
    halvings: int

    @property
    def overrides(self) -> dict[str, Any]:
        """The same as a part of a spec."""
        return {"training": self.model_dump(exclude={"halvings"})}


def smaller(spec: str, before: dict[str, Any] | None, facts: DatasetFacts | None = None) -> SmallerBatches | None:
    """The next division after one that needed too much memory; None when it cannot be, or was, divided any further.

    `spec`: the resolved spec, JSON text; `before`: a SmallerBatches as JSON, when there was one; `facts`: of its data set.
    Where a half does not divide the batch, or breaks a rule that the spec itself keeps (BatchNorm over one sample, pieces of a
    pipeline), it is the largest part below it that does neither.
    """
    job = JobSpec.model_validate_json(spec)
    training, parts = job.training, job.distributed.data_parts
    known = None if before is None else SmallerBatches.model_validate(before)
    micro = training.micro_batch_size if known is None else known.micro_batch_size
    accumulation = training.gradient_accumulation_steps if known is None else known.gradient_accumulation_steps
    batch = batch_of(training.batch_size, micro, accumulation, parts)
    done = 0 if known is None else known.halvings
    if batch is None or batch.micro == 1 or done == MOST:
        return None
    part = batch.micro * batch.accumulation
    tried = (_divided(job, size, part // size) for size in range(batch.micro // 2, 0, -1) if part % size == 0)
    allowed = _broken(job, facts)
    fits = next((each.training for each in tried if _broken(each, facts) <= allowed), None)
    if fits is None or fits.micro_batch_size is None or fits.gradient_accumulation_steps is None:
        return None
    return SmallerBatches(
        micro_batch_size=fits.micro_batch_size, gradient_accumulation_steps=fits.gradient_accumulation_steps, halvings=done + 1
    )


def _divided(job: JobSpec, micro: int, accumulation: int) -> JobSpec:
    division = {"micro_batch_size": micro, "gradient_accumulation_steps": accumulation}
    return job.model_copy(update={"training": job.training.model_copy(update=division)})


def _broken(job: JobSpec, facts: DatasetFacts | None) -> set[tuple[str, str]]:
    """Rules that the spec breaks. It may break some that are newer than its job."""
    return {(found.code, found.pointer) for found in check(job, facts) if found.severity == "error"}


def applied(spec: dict[str, Any], remedy: dict[str, Any] | None) -> dict[str, Any]:
    """A resolved spec as an attempt runs it."""
    if remedy is None:
        return spec
    overrides = SmallerBatches.model_validate(remedy).overrides
    return {**spec, **{section: {**spec[section], **values} for section, values in overrides.items()}}
