"""What ranks that learn apart ask of the rest of the job."""

from collections.abc import Iterator

from stoker.spec.distributed import LocalSGD
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.rules.lengths import RUN_READS, total_steps


def never_averaged(case: Case) -> Iterator[Hit]:
    total = total_steps(case)
    match case.spec.distributed:
        case LocalSGD(sync_every=every) if total is not None and every > total:
            yield hit("/distributed/sync_every", every=every, total=total)
        case _:
            return


def averages_apart(case: Case) -> Iterator[Hit]:
    training = case.spec.training
    if isinstance(case.spec.distributed, LocalSGD):
        for name in ("ema", "swa"):
            if getattr(training, name) is not None:
                yield hit(f"/training/{name}", name=name)


MEETING_RULES = (
    Rule(
        "local-sgd-averages", "R", ("/distributed", "/training"), averages_apart,
        "`{name}` averages the weights of one model over steps, and with local_sgd each rank has its own",
        "remove `training.{name}`, or use strategy: ddp",
    ),
    Rule(
        "local-sgd-never-averaged", "W", ("/distributed", *RUN_READS), never_averaged,
        "weights are averaged every {every} steps, and the run has {total}: ranks learn apart to the end",
        "set `distributed.sync_every` to {total} or less",
    ),
)  # fmt: skip
