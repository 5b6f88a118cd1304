"""The catalogue of rules between families: each has an id, says what to change, and is reported together with all others."""

from collections.abc import Iterable

from stoker.errors import Finding
from stoker.facts import DatasetFacts
from stoker.i18n import Lang
from stoker.spec.job import JobSpec
from stoker.spec.rules._rule import Case, Hit, Level, Rule
from stoker.spec.rules.architecture import ARCHITECTURE_RULES
from stoker.spec.rules.attacks import ATTACK_RULES
from stoker.spec.rules.averages import AVERAGE_RULES
from stoker.spec.rules.batches import BATCH_RULES
from stoker.spec.rules.batching import BATCHING_RULES
from stoker.spec.rules.beginnings import BEGINNING_RULES
from stoker.spec.rules.checkpoints import CHECKPOINT_RULES
from stoker.spec.rules.contexts import CONTEXT_RULES
from stoker.spec.rules.failures import FAILURE_RULES
from stoker.spec.rules.formats import FORMAT_RULES
from stoker.spec.rules.gans import GAN_RULES
from stoker.spec.rules.goals import GOAL_RULES
from stoker.spec.rules.images import IMAGE_RULES
from stoker.spec.rules.insight import INSIGHT_RULES
from stoker.spec.rules.lengths import LENGTH_RULES
from stoker.spec.rules.lessons import LESSON_RULES
from stoker.spec.rules.losses import LOSS_RULES
from stoker.spec.rules.machines import MACHINE_RULES
from stoker.spec.rules.meetings import MEETING_RULES
from stoker.spec.rules.multi_tasks import MULTI_TASK_RULES
from stoker.spec.rules.nodes import NODE_RULES
from stoker.spec.rules.offloading import OFFLOADING_RULES
from stoker.spec.rules.penalties import PENALTY_RULES
from stoker.spec.rules.recomputation import RECOMPUTATION_RULES
from stoker.spec.rules.recurrence import RECURRENCE_RULES
from stoker.spec.rules.samples import SAMPLE_RULES
from stoker.spec.rules.schedules import SCHEDULE_RULES
from stoker.spec.rules.servers import SERVER_RULES
from stoker.spec.rules.sharding import SHARDING_RULES
from stoker.spec.rules.stacks import STACK_RULES
from stoker.spec.rules.stages import STAGE_RULES
from stoker.spec.rules.texts import TEXT_RULES
from stoker.spec.rules.transformers import TRANSFORMER_RULES
from stoker.spec.rules.updates import UPDATE_RULES

RULES: tuple[Rule, ...] = (
    *ARCHITECTURE_RULES,
    *STACK_RULES,
    *RECURRENCE_RULES,
    *LESSON_RULES,
    *MULTI_TASK_RULES,
    *SAMPLE_RULES,
    *TEXT_RULES,
    *GAN_RULES,
    *GOAL_RULES,
    *LOSS_RULES,
    *INSIGHT_RULES,
    *PENALTY_RULES,
    *LENGTH_RULES,
    *SCHEDULE_RULES,
    *BATCH_RULES,
    *BATCHING_RULES,
    *MACHINE_RULES,
    *CHECKPOINT_RULES,
    *BEGINNING_RULES,
    *NODE_RULES,
    *MEETING_RULES,
    *IMAGE_RULES,
    *CONTEXT_RULES,
    *STAGE_RULES,
    *TRANSFORMER_RULES,
    *SERVER_RULES,
    *SHARDING_RULES,
    *OFFLOADING_RULES,
    *FORMAT_RULES,
    *UPDATE_RULES,
    *AVERAGE_RULES,
    *ATTACK_RULES,
    *RECOMPUTATION_RULES,
    *FAILURE_RULES,
)
"""Every rule, by what it is about."""


def check(spec: JobSpec, facts: DatasetFacts | None = None, *, lang: Lang = "en", broken: Iterable[str] = ()) -> list[Finding]:
    """All findings of all rules for a completed spec.

    `broken` are pointers that the grammar refused: rules that read them say nothing.
    """
    case = Case(spec, facts)
    silent = tuple(broken)
    return [found for rule in RULES if not _touches(rule, silent) for found in rule.check(case, lang)]


def _touches(rule: Rule, broken: tuple[str, ...]) -> bool:
    return any(_overlap(read, pointer) for read in rule.reads for pointer in broken)


def _overlap(a: str, b: str) -> bool:
    return a == b or a.startswith(f"{b}/") or b.startswith(f"{a}/")


__all__ = ["RULES", "Case", "Hit", "Level", "Rule", "check"]
