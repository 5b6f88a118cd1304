"""A run put where a checkpoint left it, whatever number of ranks and whatever strategy either has."""

import json
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Replicate

from stoker.events import Notice
from worker.trainer.assembly import Run
from worker.trainer.checkpoint.boxes import box_of, local, tell
from worker.trainer.checkpoint.content import EXTRA, model_tensors, trained
from worker.trainer.checkpoint.places import RANKS, STATE
from worker.trainer.checkpoint.read import Stored
from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.names import plain
from worker.trainer.staging import TensorFile


@torch.no_grad()
def restore(run: Run, path: Path) -> None:
    """Raises SpecProblem when the checkpoint was made by another spec, OSError or ValueError when it is not readable."""
    state = json.loads((path / STATE).read_bytes())
    if state["samples_per_epoch"] != run.feed.samples_per_epoch:
        raise SpecProblem(f"checkpoint {state['step']} was made with another data set or split; begin again with --from-start")
    try:
        with Stored(path) as stored:
            _same_names(run, stored)
            _load_tensors(run, stored, state["optimizer"])
            _restore_counts(run, state)
            if _is_source(run, state):
                run.ended, run.judge.stale = None, 0  # the job that made it may have ended; this one has not
            _restore_rank(run, path)
            _restore_parts(run, stored, state["parts"])
    except (KeyError, RuntimeError) as error:
        raise SpecProblem(f"checkpoint {state['step']} does not fit the spec: {error}") from error


def _is_source(run: Run, state: dict[str, Any]) -> bool:
    """Whether the checkpoint is another job's, from which this one goes on."""
    source = run.spec.checkpoint.resume_from
    return source is not None and source.checkpoint == state["step"]


def _restore_counts(run: Run, state: dict[str, Any]) -> None:
    run.clock.step = run.clock.saved = state["step"]
    run.clock.logged, run.clock.evaluated, run.metrics, run.ended = (
        state["logged"],
        state["evaluated"],
        state["metrics"],
        state["ended"],
    )
    run.control.set_seconds(state["seconds"])
    run.log.meter.weight = state["unreported_weight"]
    judge = state["judge"]
    run.judge.best, run.judge.best_step, run.judge.stale = judge["best"], judge["best_step"], judge["stale"]
    run.judge.best_metrics = judge["best_metrics"]


def _same_names(run: Run, stored: Stored) -> None:
    """The model's tensors, on whatever ranks they are, are those that were saved."""
    here = model_tensors(run)
    everywhere = {name for text in tell(run.world, json.dumps(sorted(here))) for name in json.loads(text)}
    saved = stored.names("model")
    if everywhere != saved:
        odd = sorted(everywhere ^ saved)
        raise KeyError(f"{', '.join(odd[:3])}{' …' if len(odd) > 3 else ''} is only in one of them")
    for name, tensor in here.items():
        if stored.shape("model", name) != tuple(tensor.shape):
            raise KeyError(f"{name} has shape {list(stored.shape('model', name))}, the model wants {list(tensor.shape)}")


def _load_tensors(run: Run, stored: Stored, numbers: dict[str, dict[str, Any]]) -> None:
    for name, tensor in model_tensors(run).items():
        fill(tensor, stored, "model", name)
    moments: dict[str, list[str]] = {}
    for key in stored.names("optimizer"):
        name, _, moment = key.rpartition(".")
        moments.setdefault(name, []).append(moment)
    for name, param in trained(run):
        kept = {moment: like(param, stored, "optimizer", f"{name}.{moment}") for moment in sorted(moments.get(name, ()))}
        if kept or name in numbers:
            run.optimizer.state[param] = {**kept, **numbers.get(name, {})}
        if name.startswith(EXTRA) and name in stored.names("parts"):
            fill(param.detach(), stored, "parts", name)
    if best := stored.names("best"):
        layout = {plain(name): (name, tensor) for name, tensor in run.model.state_dict().items()}
        run.judge.weights = {name: like(tensor, stored, "best", key) for key, (name, tensor) in layout.items() if key in best}


def fill(target: torch.Tensor, stored: Stored, store: str, name: str) -> None:
    """Put what was saved into a tensor of this rank."""
    box = box_of(target)
    if local(target).numel():
        local(target).copy_(stored.box(store, name, box).reshape(local(target).shape))


def like(model: torch.Tensor, stored: Stored, store: str, name: str) -> torch.Tensor:
    """A new tensor with what was saved: where it has the model's shape, distributed over ranks as the model is."""
    shape, dtype = stored.shape(store, name), stored.dtype(store, name)
    if isinstance(model, DTensor) and shape == tuple(model.shape):
        made = torch.empty_like(model, dtype=dtype)
        fill(made, stored, store, name)
        return made
    value = stored.whole(store, name)
    made = torch.empty_like(value, device=local(model).device).copy_(value)  # memory of torch's own alignment
    if isinstance(model, DTensor) and made.dim():
        whole = [Replicate()] * model.device_mesh.ndim
        return DTensor.from_local(made, model.device_mesh, whole, run_check=False)
    return made


def _restore_parts(run: Run, stored: Stored, values: dict[str, dict[str, Any]]) -> None:
    names = sorted(stored.names("parts"))
    for name, part in run.stateful.items():
        models = part.tensors() if run.world.size > 1 else {}
        own = [key for key in names if key.startswith(f"{name}/")]
        found = {key.removeprefix(f"{name}/"): key for key in own}
        tensors = {
            short: like(models[short], stored, "parts", key)
            if isinstance(models.get(short), DTensor)
            else stored.whole("parts", key)
            for short, key in found.items()
        }
        part.load(tensors, values.get(name, {}))


def _restore_rank(run: Run, path: Path) -> None:
    """Each rank's own random stream and loss; with other ranks, new streams and the sum in the first part of the batch."""
    world, meter = run.world, run.log.meter.total
    with TensorFile(path / RANKS) as artifacts:
        ranks = {name: artifacts.read(name, (0,) * len(kept.shape), kept.shape) for name, kept in artifacts.tensors.items()}
    before = ranks["part"].flatten().tolist()
    now = world.gather(torch.tensor([world.data_index], device=world.device)).flatten().tolist()
    if before != now:
        first = {part: rank for rank, part in reversed(list(enumerate(before)))}
        total = sum(float(ranks["loss"][rank]) for rank in sorted(first.values()))
        meter.fill_(total if world.data_index == 0 else 0.0)
        torch.manual_seed(run.seeds.noise(world.stream, run.clock.step))
        ways = "another strategy" if len(before) == len(now) else f"{world.size} ranks after {len(before)}"
        message = f"continues with {ways}: the same samples, other dropout"
        run.journal.write(Notice(level="info", code="world_size_changed", message=message, step=run.clock.step))
        return
    meter.copy_(ranks["loss"][world.rank].squeeze())
    torch.set_rng_state(ranks["rng"][world.rank].clone())  # a slice of a tensor is no state
    if world.device.type == "cuda" and "cuda_rng" in ranks:
        torch.cuda.set_rng_state(ranks["cuda_rng"][world.rank].clone(), world.device)
