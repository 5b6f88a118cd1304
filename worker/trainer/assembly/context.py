"""What is known before data is read: the spec, the ranks, the seeds, the clock, and what earlier runs left."""

from dataclasses import dataclass
from pathlib import Path

from stoker.spec import JobSpec
from worker.trainer.assembly.run import Clock
from worker.trainer.data import Description
from worker.trainer.distributed import arrange
from worker.trainer.initialization import Given
from worker.trainer.logging import build_watch
from worker.trainer.measure.stopwatch import Watch
from worker.trainer.reproducibility import Seeds, build_seeds, use_kernels
from worker.trainer.runtime.artifact import ArtifactWriter
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.world import World
from worker.trainer.task import Aim, build_task
from worker.trainer.training.distillation import Taught


@dataclass(frozen=True)
class Context:
    spec: JobSpec
    home: Path
    world: World
    journal: Journal
    clock: Clock
    watch: Watch
    seeds: Seeds
    aim: Aim
    artifacts: ArtifactWriter
    learned: Description | None
    """What an earlier attempt derived from the data."""
    taught: Taught | None
    """The model to learn from."""
    given: Given | None
    """Weights to start from."""


def build_context(
    spec: JobSpec,
    home: Path,
    world: World,
    journal: Journal,
    *,
    learned: Description | None,
    taught: Taught | None,
    given: Given | None,
) -> Context:
    watch = build_watch(spec.logging)
    use_kernels(spec.reproducibility)
    world = arrange(spec.distributed, world)
    seeds, aim = build_seeds(spec.reproducibility), build_task(spec.task)
    writer = ArtifactWriter(home, journal, world.is_lead)
    return Context(spec, home, world, journal, Clock(), watch, seeds, aim, writer, learned, taught, given)
