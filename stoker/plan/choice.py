"""What `strategy: auto` stands for: the fastest whose memory, as predicted, fits. Plan and trainer ask the same function."""

from collections.abc import Iterator
from dataclasses import dataclass

from stoker.plan.draw import draw
from stoker.plan.known import Known
from stoker.plan.memory import memory_of
from stoker.plan.prediction import MemoryView
from stoker.spec import JobSpec
from stoker.spec.activation_checkpointing import Full, KeepAll
from stoker.spec.derived.arithmetic import batch_of
from stoker.spec.distributed import DDP, FSDP, Auto, Single
from stoker.spec.distributed._ranks import Ranks
from stoker.spec.model import TransformerDecoder


@dataclass(frozen=True)
class Choice:
    """A strategy in the place of `auto`, and why."""

    spec: JobSpec
    """The job with the strategy in it."""
    reason: str
    fits: bool | None
    """Whether its prediction fits; None where nobody knows the memory."""


def candidates(auto: Auto) -> Iterator[DDP | FSDP | Single]:
    """The fastest first."""
    if auto.world_size == 1:
        yield Single()
        return
    ranks = {name: getattr(auto, name) for name in Ranks.model_fields}
    yield DDP.model_validate(ranks)
    yield FSDP.model_validate({**ranks, "reshard_after_forward": False})
    yield FSDP.model_validate(ranks)


def rank_limit(spec: JobSpec, *, worker_bytes: int | None = None, device_bytes: int | None = None) -> int | None:
    """Bytes that one rank may use: its share of the node's memory that is reserved or known, and all of its GPU."""
    reserved = None if spec.resources.memory_gb is None else int(spec.resources.memory_gb * 2**30)
    node = min((limit for limit in (reserved, worker_bytes) if limit is not None), default=None)
    share = None if node is None else node // spec.distributed.processes_per_node
    return min((limit for limit in (share, device_bytes) if limit is not None), default=None)


def choose(spec: JobSpec, known: Known, limit: int | None, *, host: int | None = None, teacher: int = 0) -> Choice:
    """For a job with strategy auto, and the bytes that each of its ranks may use. The last candidate where none fits.

    `host`: those of the node's memory, for weights that wait there. `teacher`: bytes of the model that teaches.
    """
    assert isinstance(spec.distributed, Auto)
    passed: list[str] = []
    changed = spec
    for changed in _changed(spec):
        name, memory = _name(spec, changed), _memory(changed, known, teacher)
        if limit is None:
            return Choice(changed, f"{name}: the fastest; no memory limit is known", None)
        need = memory.rank_bytes if memory.device_bytes is None else memory.device_bytes
        lent = memory.device_bytes is not None and host is not None and memory.rank_bytes > host
        if need <= limit and not lent:
            passed.append(f"{name} needs {_mib(need)} of {_mib(limit)} per rank")
            return Choice(changed, "; ".join(passed), True)
        missed = (memory.rank_bytes, host or 0) if need <= limit else (need, limit)
        passed.append(
            f"{name} needs {_mib(missed[0])}, more than {_mib(missed[1])} per rank{' of the host' if need <= limit else ''}"
        )
    return Choice(changed, "; ".join([*passed, "nothing smaller is left"]), False)


def _changed(spec: JobSpec) -> Iterator[JobSpec]:
    """Strategies first; where none fits, the last of them with activations computed again, and with weights in the host's memory."""
    assert isinstance(spec.distributed, Auto)
    last = spec
    for candidate in candidates(spec.distributed):
        last = spec.model_copy(update={"distributed": candidate})
        yield last
    if isinstance(spec.activation_checkpointing, KeepAll) and isinstance(spec.model, TransformerDecoder):
        last = last.model_copy(update={"activation_checkpointing": Full()})
        yield last
    if isinstance(last.distributed, FSDP) and spec.resources.device == "cuda":
        yield last.model_copy(update={"distributed": last.distributed.model_copy(update={"offload": "parameters"})})


def _name(spec: JobSpec, changed: JobSpec) -> str:
    """Of a candidate, by what it changes."""
    how = changed.distributed
    parts: list[str] = [how.strategy]
    if isinstance(how, FSDP):
        parts += [] if how.reshard_after_forward else ["weights kept"]
        parts += [] if how.offload == "none" else ["weights in the host's memory"]
    parts += ["activations computed again"] if changed.activation_checkpointing != spec.activation_checkpointing else []
    return ", ".join(parts)


def _memory(spec: JobSpec, known: Known, teacher: int) -> MemoryView:
    training = spec.training
    batch = batch_of(
        training.batch_size, training.micro_batch_size, training.gradient_accumulation_steps, spec.distributed.data_parts
    )
    assert batch is not None, "rules see to it that batches divide"
    return memory_of(spec, known, draw(spec, known, batch.micro), batch, teacher)


def _mib(count: int) -> str:
    return f"{-(-count // 2**20)} MiB"
