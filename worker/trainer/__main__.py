"""`python -m worker.trainer DIR`, `torchrun -m worker.trainer DIR`, or `main(DIR)` in a process forked for it.

DIR holds spec.json and data/<data set>/; journals, checkpoints and artifacts are written into it. Exit codes: 0 the run
reached its end, 75 it was told to stop and saved, 1 it raised, 2 spec, data or checkpoints do not fit, 3 the loss diverged.
Every run ends with a `finished` line in its journal unless it is killed.
"""

import errno
import faulthandler
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from pydantic import ValidationError

from stoker.events import Finished
from stoker.spec import JobSpec
from worker.trainer import checkpoint
from worker.trainer.assembly import Run, assemble
from worker.trainer.data import Description
from worker.trainer.debug import patience
from worker.trainer.distributed import offloads
from worker.trainer.distributed.parameter_server import farewell, reach_servers, servers_of
from worker.trainer.errors import NO_GPU_MEMORY, NO_HOST_MEMORY, RunError, SpecProblem
from worker.trainer.loop import train
from worker.trainer.runtime.control import StopSignal
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.world import join_world, limit_memory, rank_from_environment, ranks_from_environment
from worker.trainer.serve import serve
from worker.trainer.training.distillation import FOLDER, Taught

EXIT_CODES = {"completed": 0, "early_stopped": 0, "preempted": 75}
_KEPT: list[object] = []
"""Runs of this process. DDP's reducer may deadlock with gloo when it is destroyed, so it never is: the process just exits."""


@dataclass(frozen=True)
class Verdict:
    reason: str
    message: str
    exit_code: int


def main(home: Path) -> int:
    """Run the job in a directory as the rank that the environment says; the exit code. Raises nothing."""
    signalled, journal = StopSignal(), Journal(home, rank_from_environment())
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # a supervisor asks a silent rank where it is
    try:
        spec = read_spec(home)
        rank, ranks = rank_from_environment(), ranks_from_environment()
        servers = servers_of(spec.distributed, ranks)
        if rank >= ranks - servers:
            return serve(spec, home, journal, (rank, ranks), patience(spec.debug))
        run = _run(spec, servers, home, journal, signalled)
        journal.write(Finished(step=run.clock.step, reason=str(run.ended), metrics=run.metrics))
        farewell(str(run.ended), EXIT_CODES[str(run.ended)])
        return EXIT_CODES[str(run.ended)]
    except BaseException as error:
        verdict = judge(error)
        for kept in _KEPT:
            if isinstance(kept, Run):
                checkpoint.abandon(kept)
                if verdict.reason == "user_error":
                    checkpoint.rescue(kept)
        if verdict.exit_code == 1:
            traceback.print_exc()
        step = max((run.clock.step for run in _KEPT if isinstance(run, Run)), default=0)
        journal.write(Finished(step=step, reason=verdict.reason, message=verdict.message))
        farewell(verdict.reason, verdict.exit_code)
        return verdict.exit_code
    finally:
        journal.close()
        sys.stdout.flush()
        sys.stderr.flush()


def _run(spec: JobSpec, servers: int, home: Path, journal: Journal, signalled: StopSignal) -> Run:
    limits = spec.resources
    world = join_world(limits.device, limits.cpus, patience(spec.debug), servers, offloads=offloads(spec.distributed))
    reach_servers(world, servers, patience(spec.debug))
    limit_memory(world.device, spec.resources.gpu_memory_fraction)
    newest = checkpoint.find(home, world, journal)
    learned = Description.load(newest) if newest is not None else None
    given = checkpoint.given(spec, home) if newest is None else None  # else the checkpoint has all
    run = assemble(spec, home, world, journal, signalled, learned=learned, taught=_taught(spec, home), given=given)
    _KEPT.append(run)
    checkpoint.watch(run)
    checkpoint.note_updates(run)
    if newest is not None:
        checkpoint.restore(run, newest)
    if run.ended is None:  # else an earlier attempt saved its end and nobody heard it
        train(run)
    return run


def _taught(spec: JobSpec, home: Path) -> Taught | None:
    """The model to learn from, where the spec names one and the workspace has it. Raises SpecProblem when it is damaged."""
    path = home / "data" / FOLDER
    if spec.training.distillation is None or not path.is_dir():
        return None
    try:
        saved = checkpoint.load_model(path)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise SpecProblem(f"training.distillation.teacher: its checkpoint cannot be used: {error}") from error
    return Taught(saved.model, saved.about)


def read_spec(home: Path) -> JobSpec:
    """Raises SpecProblem when spec.json is missing or no job spec."""
    try:
        return JobSpec.model_validate_json((home / "spec.json").read_bytes())
    except OSError as error:
        raise SpecProblem(f"spec.json cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise SpecProblem(f"spec.json is not a job spec: {error}") from error


def judge(error: BaseException) -> Verdict:
    """Why a run failed, in the words of `stoker.reasons`, and the exit code."""
    text = f"{type(error).__name__}: {error}"
    match error:
        case RunError():
            return Verdict(error.reason, str(error), error.exit_code)
        case torch.OutOfMemoryError():
            return Verdict("cuda_oom", text, 1)
        case MemoryError():
            return Verdict("host_oom", text, 1)
        case dist.DistError():
            return Verdict("rank_lost", text, 1)
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Verdict("disk_full", text, 1)
        case _:
            return Verdict(_by_words(str(error)), text, 1)


def _by_words(message: str) -> str:
    """Libraries that raise plain errors say in words what happened."""
    if any(words in message for words in NO_HOST_MEMORY):
        return "host_oom"
    if any(words in message for words in NO_GPU_MEMORY):
        return "cuda_oom"
    if "No space left on device" in message or "Disk quota exceeded" in message:
        return "disk_full"
    if dist.is_initialized() and any(words in message for words in ("gloo", "Connection closed by peer", "NCCL")):
        return "rank_lost"
    return "user_error"


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python -m worker.trainer DIR, a directory with spec.json")
    os._exit(main(Path(sys.argv[1])))
