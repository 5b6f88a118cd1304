"""Rules of `training.adversarial`."""

from collections.abc import Iterator

from stoker.spec.data import reads_text
from stoker.spec.distributed import DDP, Horovod, LocalSGD, Single
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.training.adversarial import PGD, FreeAttack


@rule(
    "attack-needs-numbers",
    reads=("/training/adversarial", "/data/source"),
    message="adversarial training moves inputs a little, and tokens are whole",
    hint="remove `training.adversarial`",
)
def attack_needs_numbers(case: Case) -> Iterator[Hit]:
    if case.spec.training.adversarial is not None and reads_text(case.spec.data.source):
        yield hit("/training/adversarial")


@rule(
    "attack-needs-whole-model",
    reads=("/training/adversarial", "/distributed"),
    message="attacks run the model apart from the step, and with strategy {strategy} no rank has all of it",
    hint="use single, ddp, horovod or local_sgd, or remove `training.adversarial`",
)
def attack_needs_whole_model(case: Case) -> Iterator[Hit]:
    distributed = case.spec.distributed
    if case.spec.training.adversarial is not None and not isinstance(distributed, Single | DDP | Horovod | LocalSGD):
        yield hit("/training/adversarial", strategy=distributed.strategy)


@rule(
    "attack-in-windows",
    reads=("/training/adversarial", "/training/tbptt"),
    message="attacks look at whole samples, and `training.tbptt` cuts them into windows",
    hint="remove one of them",
)
def attack_in_windows(case: Case) -> Iterator[Hit]:
    if case.spec.training.adversarial is not None and case.spec.training.tbptt is not None:
        yield hit("/training/adversarial")


@rule(
    "attack-carried",
    reads=("/training/adversarial", "/training/dynamic_batch"),
    message="a free attack moves in the pass that the weights learn from, and a dynamic batch makes passes again",
    hint="use pgd, or no dynamic batch",
)
def attack_carried(case: Case) -> Iterator[Hit]:
    training = case.spec.training
    if isinstance(training.adversarial, FreeAttack) and training.dynamic_batch is not None:
        yield hit("/training/adversarial/method")


@rule(
    "attack-range",
    reads=("/training/adversarial",),
    message="`clip.low` is {low}, which is not below `clip.high`, {high}",
    hint="set `clip.low` below {high}",
)
def attack_range(case: Case) -> Iterator[Hit]:
    attack = case.spec.training.adversarial
    if attack is not None and attack.clip is not None and attack.clip.low >= attack.clip.high:
        yield hit("/training/adversarial/clip/low", low=f"{attack.clip.low:g}", high=f"{attack.clip.high:g}")


@rule(
    "attack-out-of-reach",
    reads=("/training/adversarial",),
    message="all steps of the attack together go {reach}, and epsilon is {epsilon}",
    hint="raise step_size or steps",
    level="W",
)
def attack_out_of_reach(case: Case) -> Iterator[Hit]:
    attack = case.spec.training.adversarial
    if isinstance(attack, PGD) and attack.step_size is not None and attack.step_size * attack.steps < attack.epsilon:
        reach = attack.step_size * attack.steps
        yield hit("/training/adversarial/step_size", reach=f"{reach:g}", epsilon=f"{attack.epsilon:g}")
