"""What adversarial training asks of the rest of the run."""

from collections.abc import Iterator

from stoker.spec.data import reads_text
from stoker.spec.distributed import DDP, Horovod, LocalSGD, Single
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.rules.batches import batch_norm
from stoker.spec.training.adversarial import PGD, FreeAttack


def attack_needs_numbers(case: Case) -> Iterator[Hit]:
    if case.spec.training.adversarial is not None and reads_text(case.spec.data.source):
        yield hit("/training/adversarial")


def attack_needs_whole_model(case: Case) -> Iterator[Hit]:
    distributed = case.spec.distributed
    if case.spec.training.adversarial is not None and not isinstance(distributed, Single | DDP | Horovod | LocalSGD):
        yield hit("/training/adversarial", strategy=distributed.strategy)


def attack_in_windows(case: Case) -> Iterator[Hit]:
    if case.spec.training.adversarial is not None and case.spec.training.tbptt is not None:
        yield hit("/training/adversarial")


def attack_carried(case: Case) -> Iterator[Hit]:
    training = case.spec.training
    if isinstance(training.adversarial, FreeAttack) and training.dynamic_batch is not None:
        yield hit("/training/adversarial/method")


def attack_range(case: Case) -> Iterator[Hit]:
    attack = case.spec.training.adversarial
    if attack is not None and attack.clip is not None and attack.clip.low >= attack.clip.high:
        yield hit("/training/adversarial/clip/low", low=f"{attack.clip.low:g}", high=f"{attack.clip.high:g}")


def attack_mixes_statistics(case: Case) -> Iterator[Hit]:
    pointer = batch_norm(case)
    if pointer is not None and case.spec.training.adversarial is not None:
        yield hit(pointer)


def attack_out_of_reach(case: Case) -> Iterator[Hit]:
    attack = case.spec.training.adversarial
    if isinstance(attack, PGD) and attack.step_size is not None and attack.step_size * attack.steps < attack.epsilon:
        reach = attack.step_size * attack.steps
        yield hit("/training/adversarial/step_size", reach=f"{reach:g}", epsilon=f"{attack.epsilon:g}")


ATTACK = "/training/adversarial"

ATTACK_RULES = (
    Rule(
        "attack-needs-numbers", "R", (ATTACK, "/data/source"), attack_needs_numbers,
        "adversarial training moves inputs a little, and tokens are whole", "remove `training.adversarial`",
    ),
    Rule(
        "attack-needs-whole-model", "R", (ATTACK, "/distributed"), attack_needs_whole_model,
        "attacks run the model apart from the step, and with strategy {strategy} no rank has all of it",
        "use single, ddp, horovod or local_sgd, or remove `training.adversarial`",
    ),
    Rule(
        "attack-in-windows", "R", (ATTACK, "/training/tbptt"), attack_in_windows,
        "attacks look at whole samples, and `training.tbptt` cuts them into windows", "remove one of them",
    ),
    Rule(
        "attack-carried", "R", (ATTACK, "/training/dynamic_batch"), attack_carried,
        "a free attack moves in the pass that the weights learn from, and a dynamic batch makes passes again", "use pgd, or no dynamic batch",
    ),
    Rule(
        "attack-range", "R", (ATTACK,), attack_range,
        "inputs from {low} to {high} are none", "set low below high",
    ),
    Rule(
        "attack-mixes-statistics", "W", (ATTACK, "/model"), attack_mixes_statistics,
        "BatchNorm's statistics will be those of attacked samples, and clean ones are judged with them",
        "use layer or rms normalisation, or a lower ratio",
    ),
    Rule(
        "attack-out-of-reach", "W", (ATTACK,), attack_out_of_reach,
        "all steps of the attack together go {reach}, and epsilon is {epsilon}", "raise step_size or steps",
    ),
)  # fmt: skip
