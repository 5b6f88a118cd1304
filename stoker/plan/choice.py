"""Which strategy `auto` stands for: the fastest whose memory, as predicted, fits. Plan and trainer ask the same function."""

from collections.abc import Iterator
from dataclasses import dataclass

from stoker.plan.draw import draw
from stoker.plan.known import Known
from stoker.plan.memory import memory_of
from stoker.spec import JobSpec
from stoker.spec.arithmetic import batch_of
from stoker.spec.distributed import DDP, FSDP, Auto, Single
from stoker.spec.distributed._ranks import Ranks


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


def choose(spec: JobSpec, known: Known, limit: int | None) -> Choice:
    """For a job with strategy auto, and the bytes that each of its ranks may use. The last candidate where none fits."""
    assert isinstance(spec.distributed, Auto)
    passed: list[str] = []
    changed = spec
    for candidate in candidates(spec.distributed):
        changed = spec.model_copy(update={"distributed": candidate})
        name = f"{candidate.strategy}, weights kept" if _kept(candidate) else candidate.strategy
        need = _rank_bytes(changed, known)
        if limit is None:
            return Choice(changed, f"{name}: the fastest; no memory limit is known", None)
        if need <= limit:
            passed.append(f"{name} needs {_mib(need)} of {_mib(limit)} per rank")
            return Choice(changed, "; ".join(passed), True)
        passed.append(f"{name} needs {_mib(need)}, more than {_mib(limit)} per rank")
    return Choice(changed, "; ".join([*passed, "nothing smaller is left"]), False)


def _kept(candidate: DDP | FSDP | Single) -> bool:
    return isinstance(candidate, FSDP) and not candidate.reshard_after_forward


def _rank_bytes(spec: JobSpec, known: Known) -> int:
    training = spec.training
    batch = batch_of(
        training.batch_size, training.micro_batch_size, training.gradient_accumulation_steps, spec.distributed.data_parts
    )
    assert batch is not None, "rules see to it that batches divide"
    return memory_of(spec, known, draw(spec, known, batch.micro), batch).rank_bytes


def _mib(count: int) -> str:
    return f"{-(-count // 2**20)} MiB"
