"""What can be saved, and how."""

from collections.abc import Iterator

from stoker.spec.rules._rule import Case, Hit, Rule, hit


def exceptions_of_one(case: Case) -> Iterator[Hit]:
    ranks = case.spec.distributed.world_size
    if case.spec.checkpoint.on_exception and ranks > 1:
        yield hit("/checkpoint/on_exception", ranks=ranks)


def forks_need_host_memory(case: Case) -> Iterator[Hit]:
    if case.spec.checkpoint.background == "fork" and case.spec.resources.device == "cuda":
        yield hit("/checkpoint/background", ("copy", "off"))


CHECKPOINT_RULES = (
    Rule(
        "on-exception-one-process", "R", ("/checkpoint/on_exception", "/distributed"), exceptions_of_one,
        "on_exception saves what one process has, and there are {ranks} ranks: when one raises, the others cannot say what they hold",
        "remove on_exception, or set strategy: single",
    ),
    Rule(
        "fork-needs-host-memory", "R", ("/checkpoint/background", "/resources/device"), forks_need_host_memory,
        "a forked process cannot read the memory of a GPU, and device is cuda", "set background: copy, or leave it out",
    ),
)  # fmt: skip
