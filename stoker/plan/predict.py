"""From a resolved spec and a data set's facts to its plan, by integer arithmetic alone."""

from stoker.errors import Finding, SpecError
from stoker.facts import DatasetFacts
from stoker.plan.alternatives import alternatives_of
from stoker.plan.checkpoint import checkpoint_of
from stoker.plan.choice import choose, rank_limit
from stoker.plan.draw import draw
from stoker.plan.finetune import refuse_idle_patterns
from stoker.plan.known import Known, known_of
from stoker.plan.limits import LIMITS, Limits, refuse_memory, refuse_parameters
from stoker.plan.memory import memory_of, teacher_bytes
from stoker.plan.prediction import BatchView, FlopsView, MemoryView, ParametersView, PartView, Plan, SamplesView, StepsView
from stoker.plan.remembered import refuse_idle_groups
from stoker.plan.spectral import refuse_idle_penalties
from stoker.plan.spread import ranks_saved
from stoker.plan.steps import samples_of, steps_of
from stoker.plan.tape import Tape
from stoker.spec import JobSpec
from stoker.spec.derived.arithmetic import Batch, batch_of
from stoker.spec.distributed import Auto, Single


def plan(
    spec: JobSpec,
    facts: DatasetFacts,
    *,
    worker_bytes: int | None = None,
    device_bytes: int | None = None,
    limits: Limits = LIMITS,
    teacher: JobSpec | None = None,
) -> Plan:
    """Predict a run. `worker_bytes` is the memory of a node, which its ranks share, `device_bytes` that of the GPU under each;
    `teacher` the job whose model teaches.

    Where the run does not fit in those, or in resources.memory_gb, the plan offers alternatives. Raises SpecError with code
    `estimate_exceeds_limit` for what no machine will ever hold; nothing is allocated before.
    """
    made, chosen = plan_without_text(
        spec, facts, worker_bytes=worker_bytes, device_bytes=device_bytes, limits=limits, teacher=teacher
    )
    return with_text(made, len(chosen.model_dump_json(indent=1)))


def with_text(made: Plan, size: int) -> Plan:
    """A plan with the bytes that the spec's text takes in each checkpoint."""
    return made.model_copy(update={"checkpoint": made.checkpoint.with_spec(size)})


def plan_without_text(
    spec: JobSpec,
    facts: DatasetFacts,
    *,
    worker_bytes: int | None = None,
    device_bytes: int | None = None,
    limits: Limits = LIMITS,
    teacher: JobSpec | None = None,
) -> tuple[Plan, JobSpec]:
    """The plan without the bytes of the spec's text, and the spec with its strategy chosen.

    Jobs whose specs differ in name or seed have it in common.
    """
    known, batch, strategy = known_of(spec, facts), _batch(spec), None
    taught = teacher_bytes(teacher, known)
    if isinstance(spec.distributed, Auto):
        rank = rank_limit(spec, worker_bytes=worker_bytes, device_bytes=device_bytes)
        choice = choose(spec, known, rank, host=rank_limit(spec, worker_bytes=worker_bytes), teacher=taught)
        spec, strategy = choice.spec, choice.reason
    tape = draw(spec, known, batch.micro)
    refuse_parameters(spec, tape, limits)
    refuse_idle_patterns(spec.initialization.finetune, tape)
    refuse_idle_groups(spec, tape)
    refuse_idle_penalties(spec.regularization, tape)
    memory = memory_of(spec, known, tape, batch, taught)
    refuse_memory(spec, tape, memory, limits)
    samples = samples_of(known)
    steps = steps_of(spec, samples, batch)
    limit = _smaller(_reserved(spec), worker_bytes)
    nodes = spec.distributed.nodes
    fits = _fits(memory, nodes, limit, device_bytes) if limit is not None or device_bytes is not None else None
    made = Plan(
        model=spec.model.type,
        parameters=_parameters(tape),
        flops=_flops(tape, samples, batch, steps),
        samples=samples,
        batch=BatchView(size=batch.size, micro=batch.micro, accumulation=batch.accumulation, ranks=batch.ranks),
        steps=steps,
        memory=memory,
        fewest_total_bytes=_on_fewest_nodes(spec, known, tape, batch, taught),
        checkpoint=checkpoint_of(spec, facts, known, tape, ranks_saved(spec.distributed)),
        limit_bytes=limit,
        device_limit_bytes=device_bytes,
        fits=fits,
        strategy=strategy,
        alternatives=()
        if fits is not False
        else alternatives_of(
            spec, batch, lambda changed: _memory(changed, known, taught), lambda then: _fits(then, nodes, limit, device_bytes)
        ),
    )
    return made, spec


def _batch(spec: JobSpec) -> Batch:
    training = spec.training
    ranks = spec.distributed.data_parts
    batch = batch_of(training.batch_size, training.micro_batch_size, training.gradient_accumulation_steps, ranks)
    if batch is None:
        message = "batch_size is not micro_batch_size x gradient_accumulation_steps x ranks"
        raise SpecError([Finding(pointer="/training/batch_size", code="batch-size", message=message)])
    return batch


def _memory(spec: JobSpec, known: Known, teacher: int) -> MemoryView:
    batch = _batch(spec)
    return memory_of(spec, known, draw(spec, known, batch.micro), batch, teacher)


def _reserved(spec: JobSpec) -> int | None:
    return None if spec.resources.memory_gb is None else int(spec.resources.memory_gb * 2**30)


def _smaller(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _fits(memory: MemoryView, nodes: int, worker: int | None, device: int | None) -> bool:
    """Every node holds an equal part of the ranks."""
    on_gpu = memory.rank_bytes if memory.device_bytes is None else memory.device_bytes
    return (worker is None or memory.total_bytes <= nodes * worker) and (device is None or on_gpu <= device)


def _on_fewest_nodes(spec: JobSpec, known: Known, tape: Tape, batch: Batch, teacher: int) -> int | None:
    """Micro-batches stay as they are; each rank makes more of them."""
    if isinstance(spec.distributed, Single) or spec.distributed.fewest_nodes >= spec.distributed.nodes:
        return None
    fewer = spec.distributed.model_copy(update={"nodes": spec.distributed.fewest_nodes})
    ranks = fewer.data_parts
    larger = Batch(batch.size, batch.micro, -(-batch.size // (batch.micro * ranks)), ranks)
    return memory_of(spec.model_copy(update={"distributed": fewer}), known, tape, larger, teacher).total_bytes


def _parameters(tape: Tape) -> ParametersView:
    parts: dict[str, int] = {}
    for weight in tape.weights:
        parts[weight.part] = parts.get(weight.part, 0) + weight.size
    return ParametersView(
        total=sum(parts.values()),
        trainable=sum(w.size for w in tape.learned),
        parts=tuple(PartView(name=name, parameters=count) for name, count in parts.items()),
    )


def _flops(tape: Tape, samples: SamplesView, batch: Batch, steps: StepsView) -> FlopsView:
    forward, step = tape.forward // tape.batch, (tape.forward + tape.backward) // tape.batch
    tokens = samples.tokens_per_sample
    return FlopsView(
        forward_per_sample_flops=forward,
        step_per_sample_flops=step,
        forward_per_token_flops=forward // tokens if tokens else None,
        step_per_token_flops=step // tokens if tokens else None,
        step_flops=step * batch.size,
        total_flops=None if steps.samples is None else step * steps.samples,
    )
