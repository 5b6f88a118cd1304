"""Plans and views that are worked out once for many documents equal those that are made for each."""

import random
from typing import Any

from server.jobs.forecast import Forecasts
from stoker.document.document import Document
from stoker.document.resolver import Resolver
from stoker.errors import SpecError
from stoker.plan import needs, plan
from tests.support.spec_cases import JOBS, TABLE, TABLE_JOB, changed

STUDY: tuple[dict[str, Any], ...] = (
    {"name": "a"},
    {"name": "a-longer-name", "labels": {"k": "v"}},
    {"reproducibility": {"seed": 3}},
    {"reproducibility": {"seed": 300}},
    {"optimizer": {"type": "adamw", "lr": 0.25}},
    {"optimizer": {"type": "sgd", "lr": 0.25, "momentum": 0.9}},
    {"training.batch_size": 16},
    {"checkpoint": {"keep_last": 4}},
    {"resources": {"memory_gb": 0.01}},
    {"resources": {"cpus": 3, "time_limit_seconds": 60}},
    {"evaluation": {"metrics": []}},
    {"distributed": {"strategy": "auto", "processes_per_node": 2}},
)
"""What a study changes from job to job."""


def test_a_forecast_of_any_document_of_a_study_is_that_of_a_document_alone() -> None:
    resolver, forecasts, dice = Resolver(), Forecasts(), random.Random(0)
    known = [(changed(job, changes), facts) for job, facts in JOBS.values() for changes in STUDY]
    compared = 0
    for job, facts in [*dice.sample(known, len(known)), *dice.sample(known, len(known))]:
        try:
            resolved = resolver.resolve(Document(job), facts)
        except SpecError:
            continue  # the change does not fit this family
        made, alone = forecasts.of(resolved, facts, None), plan(resolved.spec, facts)
        fresh = Forecasts().of(resolved, facts, None)
        assert made == fresh
        assert made.plan == alone
        assert made.columns["plan"] == made.view["plan"] == alone.model_dump(mode="json")
        assert made.columns["needs"] == needs(resolved.spec, alone)
        compared += 1
    assert compared > 100


def test_the_length_of_the_spec_counts_in_its_checkpoints() -> None:
    resolver, forecasts = Resolver(), Forecasts()
    sizes = []
    for name in ("n", "n" * 50):
        resolved = resolver.resolve(Document(changed(TABLE_JOB, {"name": name})), TABLE)
        sizes.append(forecasts.of(resolved, TABLE, None).plan.checkpoint.total_bytes)
    assert sizes[1] - sizes[0] == 49
