"""What the run asks of a machine."""

from collections.abc import Iterator

from stoker.spec.distributed import DDP, Horovod, LocalSGD
from stoker.spec.rules._rule import Case, Hit, Rule, hit


def pinning_needs_gpu(case: Case) -> Iterator[Hit]:
    if case.spec.data.loader.pin_memory and case.spec.resources.device == "cpu":
        yield hit("/data/loader/pin_memory")


def cpus_for_ranks(case: Case) -> Iterator[Hit]:
    cpus, ranks = case.spec.resources.cpus, case.spec.distributed.world_size
    if cpus is not None and cpus < ranks:
        yield hit("/resources/cpus", cpus=cpus, ranks=ranks)


def cpus_uneven(case: Case) -> Iterator[Hit]:
    cpus, ranks = case.spec.resources.cpus, case.spec.distributed.world_size
    if cpus is not None and cpus > ranks and cpus % ranks:
        yield hit("/resources/cpus", cpus=cpus, ranks=ranks, idle=cpus % ranks, nearest=cpus - cpus % ranks)


def one_rank(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, DDP | Horovod | LocalSGD) and spec.world_size == 1:
        yield hit("/distributed/processes_per_node", strategy=spec.strategy)


def fraction_of_gpu(case: Case) -> Iterator[Hit]:
    if case.spec.resources.gpu_memory_fraction is not None and case.spec.resources.device != "cuda":
        yield hit("/resources/gpu_memory_fraction", device=case.spec.resources.device)


MACHINE_RULES = (
    Rule(
        "gpu-memory-fraction-needs-gpu", "R", ("/resources",), fraction_of_gpu,
        "a share of a GPU's memory says nothing of device: {device}", "set device: cuda, or remove gpu_memory_fraction",
    ),
    Rule(
        "pin-memory-needs-gpu", "R", ("/data/loader", "/resources/device"), pinning_needs_gpu,
        "pinned memory speeds up copies to a GPU, and device is cpu", "remove pin_memory, or set `resources.device`",
    ),
    Rule(
        "cpus-for-ranks", "R", ("/resources/cpus", "/distributed"), cpus_for_ranks,
        "{cpus} CPU slots are fewer than {ranks} ranks", "set `resources.cpus` to {ranks} or more, or leave it out",
    ),
    Rule(
        "cpus-uneven", "W", ("/resources/cpus", "/distributed"), cpus_uneven,
        "{cpus} CPU slots do not divide among {ranks} ranks: {idle} would be idle", "set `resources.cpus` to {nearest}",
    ),
    Rule(
        "ddp-one-rank", "W", ("/distributed",), one_rank,
        "{strategy} with one rank only costs time", "set strategy: single, or more processes_per_node",
    ),
)  # fmt: skip
