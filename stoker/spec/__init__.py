"""The job spec: one immutable tree that every plane reads and none translates."""

from stoker.spec.base import Duration, Spec
from stoker.spec.job import JobSpec

__all__ = ["Duration", "JobSpec", "Spec"]
