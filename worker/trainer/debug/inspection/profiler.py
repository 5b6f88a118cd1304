"""A few steps recorded: what ran when, on every rank."""

import gzip
import tempfile
from pathlib import Path

import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile

from stoker.spec.debug.inspection import Profiler
from worker.trainer.runtime.artifact import ArtifactWriter
from worker.trainer.runtime.world import World

ROWS = 40
"""Operations in the table."""


class Record:
    """Asked after every step; records between two of them."""

    def __init__(self, spec: Profiler, world: World, artifacts: ArtifactWriter) -> None:
        self._spec, self._world, self._shelf = spec, world, artifacts
        self._running: profile | None = None

    def __call__(self, step: int) -> None:
        if step == self._spec.start_step:
            on_gpu = self._world.device.type == "cuda"
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
            self._running = profile(
                activities=activities, profile_memory=self._spec.memory, with_stack=self._spec.with_stack, acc_events=True
            )
            self._running.start()
        elif step == self._spec.start_step + self._spec.active_steps:
            self.finish(step, "")

    def finish(self, step: int, reason: str) -> None:
        """Keep what was recorded, if it was not yet. All ranks come here after the same step."""
        if self._running is None:
            return
        running, self._running = self._running, None
        running.stop()
        for rank, trace in enumerate(self._gathered(_trace(running))):
            self._shelf.data(f"trace/rank{rank}.json.gz", trace)
        order = "self_cuda_time_total" if self._world.device.type == "cuda" else "self_cpu_time_total"
        self._shelf.text("trace/table.txt", running.key_averages().table(sort_by=order, row_limit=ROWS) + "\n")

    def _gathered(self, trace: bytes) -> list[bytes]:
        """Those of all ranks on the first one, which may be another machine; nothing on others."""
        if self._world.size == 1:
            return [trace]
        traces: list[bytes | None] = [None] * self._world.size
        dist.gather_object(trace, traces if self._world.is_lead else None)
        return [each for each in traces if each is not None] if self._world.is_lead else []


def _trace(running: profile) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        running.export_chrome_trace(str(path))
        return gzip.compress(path.read_bytes(), mtime=0)
