"""What learning from a teacher goes with."""

from collections.abc import Iterator

from stoker.spec.distributed import DDP, FSDP
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.task import CausalLM, Classification


def needs_classes(case: Case) -> Iterator[Hit]:
    if case.spec.training.distillation is not None and not isinstance(case.spec.task, Classification | CausalLM):
        yield hit("/training/distillation", task=case.spec.task.type)


def not_in_windows(case: Case) -> Iterator[Hit]:
    if case.spec.training.distillation is not None and case.spec.training.tbptt is not None:
        yield hit("/training/tbptt")


def needs_whole_samples(case: Case) -> Iterator[Hit]:
    """Context parallelism has a rule of its own."""
    cut = isinstance(case.spec.distributed, DDP | FSDP) and case.spec.distributed.tensor_parallel is not None
    if case.spec.training.distillation is not None and cut:
        yield hit("/distributed/tensor_parallel")


def teaches_nothing(case: Case) -> Iterator[Hit]:
    lesson = case.spec.training.distillation
    if lesson is not None and lesson.alpha == 0 and not lesson.layer_map:
        yield hit("/training/distillation/alpha")


def memory_unplanned(case: Case) -> Iterator[Hit]:
    if case.spec.training.distillation is not None:
        yield hit("/training/distillation/teacher")


READS = ("/training/distillation",)

LESSON_RULES = (
    Rule(
        "distillation-needs-classes", "R", (*READS, "/task/type"), needs_classes,
        "a teacher's probabilities are for classes and tokens, and the task is {task}", "remove `training.distillation`",
    ),
    Rule(
        "distillation-in-windows", "R", (*READS, "/training/tbptt"), not_in_windows,
        "a teacher sees whole samples, and `training.tbptt` cuts them", "remove one of the two",
    ),
    Rule(
        "distillation-needs-whole-samples", "R", (*READS, "/distributed"), needs_whole_samples,
        "a teacher is whole on every rank, and `distributed.tensor_parallel` cuts the student", "use ddp or fsdp without it",
    ),
    Rule(
        "distillation-teaches-nothing", "W", READS, teaches_nothing,
        "with alpha 0 and no layer_map the teacher only costs time", "raise `training.distillation.alpha`, or remove distillation",
    ),
    Rule(
        "teacher-memory-unplanned", "W", READS, memory_unplanned,
        "the plan counts the weights of the teacher, but not what its pass and the comparison take", "reserve it with `resources.memory_gb` where memory is short",
    ),
)  # fmt: skip
