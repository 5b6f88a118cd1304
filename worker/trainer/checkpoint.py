"""Checkpoints: everything a run would otherwise forget, in a directory that is there whole or not at all.

    checkpoints/step-00000100/
      manifest.json           step, and path, bytes and SHA-256 of every other file; written last
      model.safetensors       weights and buffers by name
      optimizer.safetensors   `<weight>.<moment>`
      best.safetensors        the model at the best evaluation, when early stopping is to restore it
      ranks.safetensors       per rank: the random generators and the unreported training loss
      parts.safetensors       `<part>/<tensor>` of every part of the run with a memory of its own, if any
      state.json              step, clock, evaluations, early stopping, numbers of those parts
      spec.json               the job spec
      data.json               shape, outputs, classes, columns
      scaling.safetensors     the fitted normalization, if any
      tokenizer.json          the learned tokenizer, for text

The directory is written under another name, each file flushed, the manifest last, and then renamed (reliability.md). Nothing
in it is a pickle. It needs nothing beside it: `worker.trainer.predict` uses the model from it.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from stoker.events import Notice, Saved
from worker.trainer.assemble import Run
from worker.trainer.errors import NoValidCheckpoint, SpecProblem
from worker.trainer.journal import Journal
from worker.trainer.shards import placed, whole
from worker.trainer.world import World

Files = dict[str, dict[str, torch.Tensor]]
"""Tensors by file and name."""

NONE_YET, ALL_DAMAGED = -1, -2
NEEDED = {"model.safetensors", "optimizer.safetensors", "ranks.safetensors", "state.json", "spec.json", "data.json"}
KEPT = 3
"""Newest checkpoints that stay on the worker's disk; the server keeps more by policy."""


def directory(home: Path, step: int) -> Path:
    return home / "checkpoints" / f"step-{step:08d}"


def save(run: Run, *, final: bool = False) -> None:
    """Every rank calls it; rank 0 writes. Raises OSError when the disk does not take it; the checkpoint before stays."""
    run.journal.phase("checkpointing")
    run.replica.settle()
    ranks, parts, files = _rank_states(run), _parts(run), _files(run)
    if run.world.is_lead:
        _write(run, files | {"ranks": ranks, "parts": parts}, final)
        path = directory(run.home, run.step).relative_to(run.home).as_posix()
        run.journal.write(Saved(step=run.step, path=path, metrics=run.metrics, final=final))
    run.saved = run.step


def _rank_states(run: Run) -> dict[str, torch.Tensor]:
    """Stacked by rank: random generators and the summed training loss that was not reported yet."""
    states = {"rng": torch.get_rng_state(), "loss": run.log.meter.total.reshape(1)}
    if run.world.device.type == "cuda":
        states["cuda_rng"] = torch.cuda.get_rng_state(run.world.device)
    return {name: run.world.gather(state.to(run.world.device)).cpu() for name, state in states.items()}


def _parts(run: Run) -> dict[str, torch.Tensor]:
    """Tensors of parts with a memory of their own; ranks may have to meet for them."""
    return {f"{name}/{key}": value for name, part in run.stateful.items() for key, value in part.tensors().items()}


def _write(run: Run, files: Files, final: bool) -> None:
    target = directory(run.home, run.step)
    building = target.with_name(f".building-{target.name}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        _fill(run, files, building, final)
        _commit(building, run.step)
        if target.exists():  # a damaged one of an earlier attempt
            shutil.rmtree(target)
        building.rename(target)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    _flush(target.parent)
    for old in _steps(run.home)[KEPT:]:
        shutil.rmtree(directory(run.home, old), ignore_errors=True)


def _fill(run: Run, files: Files, into: Path, final: bool) -> None:
    for name, tensors in files.items():
        if tensors or name in ("model", "optimizer", "ranks"):
            save_file(tensors, into / f"{name}.safetensors")
    (into / "state.json").write_text(json.dumps(_state(run, final), indent=1))
    (into / "spec.json").write_text(run.spec.model_dump_json(indent=1))
    run.data.about.save(into)


def _state(run: Run, final: bool) -> dict[str, Any]:
    judge, feed = run.judge, run.feed
    samples = feed.samples_after(run.step)
    return {
        "step": run.step,
        "epoch": run.step // feed.per_epoch,
        "batch": run.step % feed.per_epoch,
        "samples": samples,
        "tokens": samples * run.data.train.tokens_per_sample,
        "samples_per_epoch": feed.samples_per_epoch,
        "seconds": run.control.seconds,
        "logged": run.logged,
        "evaluated": run.evaluated,
        "unreported_weight": run.log.meter.weight,
        "metrics": run.metrics,
        "ended": run.ended if final else None,
        "parts": {name: part.values() for name, part in run.stateful.items()},
        "judge": {
            "best": judge.best,
            "best_step": judge.best_step,
            "best_metrics": judge.best_metrics,
            "stale": judge.stale,
        },
    }


def _files(run: Run) -> Files:
    """Whole tensors, on rank 0; the others help to make them."""
    named = [(name, run.optimizer.state.get(param, {})) for name, param in run.model.named_parameters()]
    moments = {f"{name}.{key}": value for name, state in named for key, value in state.items() if isinstance(value, torch.Tensor)}
    return {
        "model": _gathered(run, run.model.state_dict()),
        "optimizer": _gathered(run, moments),
        "best": _gathered(run, run.judge.weights),
    }


def _gathered(run: Run, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    gathered = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if run.world.is_lead:
            gathered[name] = full.contiguous()
    return gathered


def _commit(building: Path, step: int) -> None:
    """Flush every file, then name them all in the manifest and flush that."""
    files = []
    for path in sorted(building.iterdir()):
        _flush(path)
        files.append({"path": path.name, "bytes": path.stat().st_size, "sha256": _digest(path)})
    manifest = building / "manifest.json"
    manifest.write_text(json.dumps({"version": 1, "step": step, "files": files}, indent=1))
    _flush(manifest)
    _flush(building)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _steps(home: Path) -> list[int]:
    """Steps of the checkpoints on disk, newest first, whole or not."""
    found = (home / "checkpoints").glob("step-" + "[0-9]" * 8)
    return sorted((int(path.name.removeprefix("step-")) for path in found), reverse=True)


def find(home: Path, world: World, journal: Journal) -> Path | None:
    """The newest checkpoint whose files are all what its manifest says, the same on every rank; None when there is none at all.

    Says which ones are damaged. Raises NoValidCheckpoint when all are.
    """
    choice = _choose(home, journal) if world.is_lead else 0
    agreed = int(world.broadcast(torch.tensor([choice], device=world.device)).item())
    if agreed == ALL_DAMAGED:
        raise NoValidCheckpoint("every checkpoint of the job is damaged; `stoker retry --from-start` begins again")
    return None if agreed == NONE_YET else directory(home, agreed)


def _choose(home: Path, journal: Journal) -> int:
    for remains in (home / "checkpoints").glob(".building-*"):
        shutil.rmtree(remains, ignore_errors=True)
    steps = _steps(home)
    for step in steps:
        damage = inspect(directory(home, step))
        if damage is None:
            return step
        journal.write(
            Notice(
                level="warning",
                code="checkpoint_corrupt",
                message=f"checkpoint {step} is damaged ({damage}); the one before is used",
                data={"step": step},
            )
        )
    return ALL_DAMAGED if steps else NONE_YET


def inspect(path: Path) -> str | None:
    """What is wrong with a checkpoint directory, in a few words; None when it is whole."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        files = {str(entry["path"]): (int(entry["bytes"]), str(entry["sha256"])) for entry in manifest["files"]}
        if f"step-{int(manifest['step']):08d}" != path.name:
            return "its manifest is that of another step"
    except (OSError, ValueError, KeyError, TypeError):
        return "no readable manifest"
    if not files.keys() >= NEEDED:
        return "files are missing in the manifest"
    for name, (size, digest) in files.items():
        if name != Path(name).name or not (path / name).is_file() or (path / name).stat().st_size != size:
            return f"{name} is missing or has another size"
        if _digest(path / name) != digest:
            return f"{name} has another content"
    return None


def restore(run: Run, path: Path) -> None:
    """Put a run where the checkpoint left it. Raises SpecProblem when it was made by another spec."""
    state = json.loads((path / "state.json").read_text())
    if state["samples_per_epoch"] != run.feed.samples_per_epoch:
        raise SpecProblem(f"checkpoint {state['step']} was made with another data set or split; begin again with --from-start")
    try:
        _load_tensors(run, path)
    except (KeyError, RuntimeError, SafetensorError) as error:
        raise SpecProblem(f"checkpoint {state['step']} does not fit the spec: {error}") from error
    run.step = run.saved = state["step"]
    run.logged, run.evaluated, run.metrics, run.ended = state["logged"], state["evaluated"], state["metrics"], state["ended"]
    run.control.set_seconds(state["seconds"])
    run.log.meter.weight = state["unreported_weight"]
    judge = state["judge"]
    run.judge.best, run.judge.best_step, run.judge.stale = judge["best"], judge["best_step"], judge["stale"]
    run.judge.best_metrics = judge["best_metrics"]
    _restore_rank(run, load_file(path / "ranks.safetensors"))
    _restore_parts(run, path, state["parts"])


def _restore_parts(run: Run, path: Path, values: dict[str, dict[str, Any]]) -> None:
    tensors = load_file(path / "parts.safetensors") if (path / "parts.safetensors").exists() else {}
    for name, part in run.stateful.items():
        own = {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
        part.load(own, values.get(name, {}))


def _load_tensors(run: Run, path: Path) -> None:
    laid_out = run.model.state_dict()
    saved = load_file(path / "model.safetensors")
    run.model.load_state_dict({name: placed(value, laid_out.get(name, value)) for name, value in saved.items()})
    kept: dict[str, dict[str, torch.Tensor]] = {name: {} for name, _ in run.model.named_parameters()}
    for key, value in load_file(path / "optimizer.safetensors").items():
        name, _, moment = key.rpartition(".")  # in memory of torch's own alignment
        kept[name][moment] = placed(value, laid_out[name] if value.dim() else value.to(run.world.device))
    for name, param in run.model.named_parameters():
        if kept[name]:
            run.optimizer.state[param] = kept[name]
    if (path / "best.safetensors").exists():
        run.judge.weights = {
            name: placed(value, laid_out[name]) for name, value in load_file(path / "best.safetensors").items()
        }


def _restore_rank(run: Run, ranks: dict[str, torch.Tensor]) -> None:
    """Each rank's own random stream and loss; with another number of ranks, new streams and the sum on rank 0."""
    rank, loss = run.world.rank, ranks["loss"]
    if len(loss) != run.world.size:
        run.log.meter.total.fill_(loss.sum() if run.world.is_lead else 0.0)
        torch.manual_seed(run.seeds.noise(rank, run.step))
        message = f"continues with {run.world.size} ranks after {len(loss)}: the same samples, other dropout"
        run.journal.write(Notice(level="info", code="world_size_changed", message=message, step=run.step))
        return
    run.log.meter.total.copy_(loss[rank].squeeze())
    torch.set_rng_state(ranks["rng"][rank].clone())  # a slice of a tensor is no state
    if run.world.device.type == "cuda" and "cuda_rng" in ranks:
        torch.cuda.set_rng_state(ranks["cuda_rng"][rank].clone(), run.world.device)
