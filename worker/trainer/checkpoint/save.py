"""Saving a run: what it is at this step is staged, written while the run goes on, and committed once every rank's files are there.

At most one save is under way; the next one waits for it, so that the steps at which there are checkpoints never depend on how
fast a disk is. What ranks must agree on rides on the exchange that they have after each step anyway.
"""

import errno
import os
import shutil
import time
from dataclasses import dataclass, field

import torch

from stoker.events import Metrics, Notice, Saved
from worker.trainer.assembly import Run
from worker.trainer.checkpoint.boxes import Layout, Stores, lay_out, local
from worker.trainer.checkpoint.collect import collect
from worker.trainer.checkpoint.commit import commit, exchanged, manifest, write_manifest
from worker.trainer.checkpoint.content import rank_states, state_of, stores_of, trained
from worker.trainer.checkpoint.export import export
from worker.trainer.checkpoint.keep import prune
from worker.trainer.checkpoint.places import INDEX, RANKS, STATE, building, directory, shard
from worker.trainer.distributed import stands_still
from worker.trainer.runtime.world import World
from worker.trainer.staging import Copies, Done, Task, Written

BROKEN = 2.0**20
"""What a rank says whose writing failed; one whose writing ended well says 1."""


@dataclass(eq=False)
class Flight:
    """A save whose files are being written."""

    run: Run
    step: int
    metrics: dict[str, float]
    final: bool
    waited: bool
    """Whether the run stands still until it is on disk."""
    layout: Layout
    task: Task
    stall: float = 0.0
    """Seconds that the run stood still for it so far."""
    written: list[Written] = field(default_factory=list)
    trouble: OSError | None = None
    heard: bool = False

    def ask(self) -> float:
        self.take()
        if not self.task.ended():
            return 0.0
        self.wait()
        return 1.0 if self.trouble is None else BROKEN + 1.0

    def hear(self, total: float) -> None:
        broken, ended = divmod(total, BROKEN)
        if ended == self.run.world.size:
            start = time.perf_counter()
            _land(self, _worst(self) if broken else 0, start)

    def take(self) -> None:
        """Until the weights may change."""
        start = time.perf_counter()
        self.task.taken()
        self.stall += time.perf_counter() - start

    def wait(self) -> None:
        """Until this rank's files are on disk or never will be."""
        if self.heard:
            return
        self.heard = True
        try:
            self.written = self.task.outcome()
        except OSError as error:
            self.trouble = error


def save(run: Run, *, final: bool = False, wait: bool = False) -> None:
    """Every rank calls it at the same step. Returns when the run may go on: with `wait`, or at the end, when all is on disk.

    With `wait` a step that is saved already is not saved again. Raises OSError, on every rank, when a save that was waited for
    did not get to disk; the checkpoint before stays.
    """
    start = time.perf_counter()
    settle(run)
    if wait and not final and run.clock.saved == run.clock.step:
        return
    run.journal.phase("checkpointing")
    run.replica.settle()
    flight = _begin(run, final=final, wait=wait or final)
    run.staging.flight = flight
    if flight.waited:
        _finish(flight, start)
        if final:
            export(run)
    else:
        run.control.questions = (*run.control.questions, flight)
        flight.stall = time.perf_counter() - start
    if run.spec.logging.performance:
        run.journal.write(Metrics(step=run.clock.step, values={"train/checkpoint_stall_seconds": flight.stall}, t=time.time()))


def watch(run: Run) -> None:
    """From now on, where only the optimizer changes weights, what is saved may be copied while gradients are computed: it waits.

    In host memory: devices copy in the order of their own queues, and some have no addresses to tell.
    """
    if run.world.device.type == "cpu" and stands_still(run.replica):
        run.optimizer.register_step_pre_hook(lambda *_: _take(run))
        run.staging.may_take_later = True


def _take(run: Run) -> None:
    if isinstance(run.staging.flight, Flight):
        run.staging.flight.take()


def settle(run: Run) -> None:
    """Wait for the save that is under way, if any, and commit it. Every rank calls it at the same step."""
    if isinstance(run.staging.flight, Flight):
        _finish(run.staging.flight, time.perf_counter())


def abandon(run: Run) -> None:
    """The run fails: commit what is being written where this rank alone writes; other ranks may be gone. Raises nothing."""
    flight, run.staging.flight = run.staging.flight, None
    if isinstance(flight, Flight) and run.world.is_lead and not set(flight.layout.busy) - {0}:
        flight.wait()
        if flight.trouble is None and not write_manifest(run.home, flight.step, manifest(flight.step, flight.written)):
            _tell(flight)


def _finish(flight: Flight, start: float) -> None:
    flight.wait()
    _land(flight, _worst(flight), start)


def _begin(run: Run, *, final: bool, wait: bool) -> Flight:
    """Stage what this rank is to write, and start to write it."""
    place, waited = building(run.home, run.clock.step), wait or run.staging.waits
    stores, ranks = stores_of(run), rank_states(run)
    collected, trouble = collect(run.world, stores["model"], place / "model.safetensors") if final else (False, None)
    if collected:
        stores = {store: tensors for store, tensors in stores.items() if store != "model"}
    layout = run.staging.layout = lay_out(run.world, stores, run.staging.layout)
    tensors = _files(run.world, layout, stores)
    texts: dict[str, bytes] = {}
    present = ["model.safetensors"] if collected and run.world.is_lead else []
    if run.world.is_lead:
        tensors[RANKS] = ranks
        texts = {STATE: state_of(run, final=final), "spec.json": run.spec.model_dump_json(indent=1).encode()}
        texts |= {INDEX: index} if (index := layout.index()) else {}
        try:
            place.mkdir(parents=True, exist_ok=True)
            present += run.data.about.save(place)
        except OSError as error:
            trouble = trouble or error
    task: Task = (
        Done.failed(trouble) if trouble else run.staging.begin(place, tensors, texts, present, wait=waited, later=_still(run))
    )
    return Flight(run, run.clock.step, run.metrics, final, waited, layout, task)


def _still(run: Run) -> set[int]:
    """Storages that nothing but the optimizer's step changes, and those of the best weights, which wait for an evaluation."""
    if not run.staging.may_take_later:
        return set()
    moved = [tensor for _, param in trained(run) for tensor in (param.detach(), *run.optimizer.state.get(param, {}).values())]
    tensors = [local(tensor) for tensor in (*moved, *run.judge.weights.values()) if isinstance(tensor, torch.Tensor)]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def _files(world: World, layout: Layout, stores: Stores) -> dict[str, dict[str, torch.Tensor]]:
    """What this rank writes, by file and name."""
    mine = {f"{one.store}/{one.name}": local(stores[one.store][one.name]) for one in layout.sharded(world.rank)}
    files = {shard(world.rank): mine} if mine else {}
    if world.is_lead:
        whole = [*(store for store in stores if store in layout.whole), *(() if layout.busy else ("model", "optimizer"))]
        files |= {f"{store}.safetensors": {n: local(t) for n, t in stores[store].items()} for store in whole if store in stores}
    return files


def _worst(flight: Flight) -> int:
    """The errno of whichever rank failed, 0 when none did. Every rank calls it."""
    own = 0 if flight.trouble is None else flight.trouble.errno or errno.EIO
    return int(flight.run.world.most(torch.tensor([own], device=flight.run.world.device)).item())


def _land(flight: Flight, code: int, start: float) -> None:
    """Every rank has written its files, or one failed: commit, or clean up and say so. Raises OSError if it was waited for."""
    run = flight.run
    run.staging.flight = None
    run.control.questions = tuple(question for question in run.control.questions if question is not flight)
    if not code:
        files = exchanged(run.world, flight.layout.busy, flight.written)
        code = commit(run.world, run.home, flight.step, files)
    flight.stall += time.perf_counter() - start
    if code:
        _failed(flight, code)
        return
    run.clock.saved, run.staging.failed = flight.step, False
    _tell(flight)


def _tell(flight: Flight) -> None:
    run = flight.run
    path = directory(run.home, flight.step).relative_to(run.home).as_posix()
    saved = Saved(step=flight.step, path=path, metrics=flight.metrics, final=flight.final, stall_seconds=flight.stall)
    run.journal.write(saved)
    prune(run)


def _failed(flight: Flight, code: int) -> None:
    run = flight.run
    shutil.rmtree(building(run.home, flight.step), ignore_errors=True)
    if flight.waited:
        raise flight.trouble or OSError(code, f"{os.strerror(code)}, while checkpoint {flight.step} was written")
    run.staging.copies, run.staging.failed = Copies(), True
    message = f"checkpoint {flight.step} was not written ({os.strerror(code)}); the run goes on, and waits while the next one is"
    run.journal.write(Notice(level="warning", code="checkpoint_failed", message=message, step=flight.step, data={"errno": code}))
    if code in (errno.ENOSPC, errno.EDQUOT):
        prune(run, newest=1)
