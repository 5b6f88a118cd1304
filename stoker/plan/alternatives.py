"""Changes of a spec that keep its global batch and need less memory."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from stoker.plan.prediction import Alternative, MemoryView
from stoker.spec import JobSpec
from stoker.spec.derived.arithmetic import Batch
from stoker.spec.distributed import DDP, Single
from stoker.spec.precision import Precision

Patch = dict[str, Any]
Candidate = tuple[str, str, Patch, JobSpec]
"""Kind, summary, spec path to value, and the spec so changed."""


def alternatives_of(
    spec: JobSpec, batch: Batch, memory: Callable[[JobSpec], MemoryView], fits: Callable[[MemoryView], bool]
) -> tuple[Alternative, ...]:
    """Of each kind the mildest change that fits; where none does, the strongest, marked so. Those that fit come first."""
    now = memory(spec)
    found: dict[str, Alternative] = {}
    for kind, summary, patch, changed in _candidates(spec, batch):
        if kind in found and found[kind].fits:
            continue
        then = memory(changed)
        if then.total_bytes < now.total_bytes or then.rank_bytes < now.rank_bytes:
            found[kind] = Alternative(
                summary=summary, patch=patch, rank_bytes=then.rank_bytes, total_bytes=then.total_bytes, fits=fits(then)
            )
    return tuple(sorted(found.values(), key=lambda a: not a.fits))


def _candidates(spec: JobSpec, batch: Batch) -> Iterator[Candidate]:
    """From mild to strong within each kind."""
    yield from _micro_batches("micro_batch", spec, batch)
    if spec.precision.mode == "fp32":
        mixed = spec.model_copy(update={"precision": Precision(mode="bf16_mixed")})
        patch: Patch = {"precision.mode": "bf16_mixed"}
        summary = "bfloat16 matrix products; rounding differs"
        yield "precision", summary, patch, mixed
        for _, more, smaller, changed in _micro_batches("both", mixed, batch):
            yield "both", f"{summary}, and {more}", patch | smaller, changed
    yield from _ranks(spec, batch)


def _micro_batches(kind: str, spec: JobSpec, batch: Batch) -> Iterator[Candidate]:
    """Every divisor of the micro-batch reached by its smallest factors: halves where it is even."""
    micro = batch.micro
    while micro > 1:
        micro //= _smallest_factor(micro)
        patch, changed = _divided(spec, batch, micro, batch.ranks)
        yield kind, f"micro-batches of {micro} with accumulation; same result except for rounding", patch, changed


def _ranks(spec: JobSpec, batch: Batch) -> Iterator[Candidate]:
    """Fewer ranks need less on the machine, more ranks less on each. Where ranks do not hold whole models on one node, none."""
    if not isinstance(spec.distributed, Single | DDP) or spec.distributed.nodes > 1 or batch.ranks != spec.distributed.world_size:
        return
    per_rank = batch.micro * batch.accumulation
    fewer = batch.ranks
    while fewer > 1:
        fewer //= _smallest_factor(fewer)
        patch, changed = _divided(spec, batch, batch.micro, fewer)
        yield "fewer_ranks", f"{fewer} ranks, each with more micro-batches; slower", patch, changed
    more = batch.ranks
    while more < 64 and batch.micro > 1:
        factor = _smallest_factor(batch.micro)
        more *= factor
        if more > 64 or per_rank * batch.ranks % more or batch.micro * batch.ranks % more:
            return
        patch, changed = _divided(spec, batch, batch.micro * batch.ranks // more, more)
        yield "more_ranks", f"{more} ranks, each with a smaller share of the batch", patch, changed


def _divided(spec: JobSpec, batch: Batch, micro: int, ranks: int) -> tuple[Patch, JobSpec]:
    """The same global batch, divided otherwise."""
    sizes = {"micro_batch_size": micro, "gradient_accumulation_steps": batch.size // (micro * ranks)}
    patch: Patch = {f"training.{name}": value for name, value in sizes.items()}
    update: Mapping[str, Any] = {"training": spec.training.model_copy(update=sizes)}
    if ranks != batch.ranks:
        distributed = DDP(processes_per_node=ranks) if ranks > 1 else Single()
        patch["distributed.strategy"] = distributed.strategy
        if ranks > 1:
            patch["distributed.processes_per_node"] = ranks
        update = {**update, "distributed": distributed}
    return patch, spec.model_copy(update=update)


def _smallest_factor(number: int) -> int:
    """The smallest divisor above 1, looked for up to 101; a number without one counts as its own."""
    return next((factor for factor in range(2, 102) if number % factor == 0), number)
