"""What optimizers ask of the strategy and of the number format."""

from collections.abc import Iterator

from stoker.spec.distributed import FSDP, Auto, Cuttable
from stoker.spec.optimizer import Adafactor, Muon
from stoker.spec.rules._rule import Case, Hit, Rule, hit


def adafactor_in_parts(case: Case) -> Iterator[Hit]:
    how = case.spec.distributed
    cut = isinstance(how, FSDP) or (isinstance(how, Cuttable) and how.tensor_parallel is not None)
    if isinstance(case.spec.optimizer, Adafactor) and (cut or (isinstance(how, Auto) and how.world_size > 1)):
        yield hit("/optimizer/type", strategy=how.strategy)


def muon_waits_in_the_host(case: Case) -> Iterator[Hit]:
    how = case.spec.distributed
    if isinstance(case.spec.optimizer, Muon) and isinstance(how, FSDP) and how.offload != "none":
        yield hit("/distributed/offload")


def adafactor_in_fp16(case: Case) -> Iterator[Hit]:
    optimizer = case.spec.optimizer
    if isinstance(optimizer, Adafactor) and case.spec.precision.mode == "fp16_pure":
        yield hit("/precision/mode")


UPDATE_RULES = (
    Rule(
        "adafactor-in-parts", "R", ("/optimizer/type", "/distributed"), adafactor_in_parts,
        "adafactor keeps sums of rows and columns of whole weights, and strategy {strategy} cuts weights or may do so",
        "use strategy ddp, or optimizer adamw",
    ),
    Rule(
        "muon-in-the-host", "R", ("/optimizer/type", "/distributed"), muon_waits_in_the_host,
        "muon puts matrices together on the GPU, and with offload their parts wait in the host's memory", "set `offload: none`, or use optimizer adamw",
    ),
    Rule(
        "adafactor-in-fp16", "R", ("/optimizer/type", "/precision/mode"), adafactor_in_fp16,
        "adafactor's squares of small gradients are zero in fp16, and their roots divide", "use bf16_pure or fp16_mixed",
    ),
)  # fmt: skip
