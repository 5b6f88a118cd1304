"""Rules of `distributed` for local_sgd."""

from collections.abc import Iterator

from stoker.spec.distributed import LocalSGD
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.rules._steps import RUN_READS


@rule(
    "local-sgd-never-averaged",
    reads=("/distributed", *RUN_READS),
    message="weights are averaged every {every} steps, and the run has {total}: ranks learn apart to the end",
    hint="set `distributed.sync_every` to {total} or less",
    level="W",
)
def never_averaged(case: Case) -> Iterator[Hit]:
    total = case.total_steps
    match case.spec.distributed:
        case LocalSGD(sync_every=every) if total is not None and every > total:
            yield hit("/distributed/sync_every", every=every, total=total)
        case _:
            return
