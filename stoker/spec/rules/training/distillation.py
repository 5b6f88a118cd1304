"""Rules of `training.distillation`."""

from collections.abc import Iterator

from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.task import CausalLM, Classification


@rule(
    "distillation-needs-classes",
    reads=("/training/distillation", "/task/type"),
    message="a teacher's probabilities are for classes and tokens, and the task is {task}",
    hint="remove `training.distillation`",
)
def needs_classes(case: Case) -> Iterator[Hit]:
    if case.spec.training.distillation is not None and not isinstance(case.spec.task, Classification | CausalLM):
        yield hit("/training/distillation", task=case.spec.task.type)


@rule(
    "distillation-teaches-nothing",
    reads=("/training/distillation",),
    message="with alpha 0 and no layer_map the teacher only costs time",
    hint="raise `training.distillation.alpha`, or remove distillation",
    level="W",
)
def teaches_nothing(case: Case) -> Iterator[Hit]:
    lesson = case.spec.training.distillation
    if lesson is not None and lesson.alpha == 0 and not lesson.layer_map:
        yield hit("/training/distillation/alpha")


@rule(
    "teacher-memory-unplanned",
    reads=("/training/distillation",),
    message="the plan counts the weights of the teacher, but not what its pass and the comparison take",
    hint="reserve it with `resources.memory_gb` where memory is short",
    level="W",
)
def memory_unplanned(case: Case) -> Iterator[Hit]:
    if case.spec.training.distillation is not None:
        yield hit("/training/distillation/teacher")


@rule(
    "context-parallel-teacher",
    reads=("/distributed", "/training/distillation"),
    message="a teacher reads whole sequences, and ranks that share them have parts",
    hint="remove it, or `distributed.context_parallel`",
)
def context_and_teacher(case: Case) -> Iterator[Hit]:
    if case.context_parallel is not None and case.spec.training.distillation is not None:
        yield hit("/training/distillation")
