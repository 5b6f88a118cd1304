"""Steps, samples and tokens of a run, against walking through the epochs one batch at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.plan import plan
from stoker.plan.prediction import StepsView
from stoker.spec.derived.arithmetic import split_sizes
from tests.support.plan_cases import Json, classifier, language, resolved, table, text

SMALL = {"type": "mlp", "hidden_sizes": [4]}
TINY = {"num_layers": 1, "hidden_size": 8, "num_heads": 2}


def table_steps(rows: int, training: Json, drop_last: bool = False) -> StepsView:
    content = table(rows, 3)
    data = {"source": {"type": "csv", "dataset": "set@1"}, "split": {"validation": 0.0}, "loader": {"drop_last": drop_last}}
    return plan(resolved(classifier(SMALL, data=data, training=training), content), content).steps


def text_steps(tokens: int, length: int, training: Json, drop_last: bool = False) -> StepsView:
    content = text(tokens)
    data = {
        "source": {"type": "text", "dataset": "set@1"},
        "tokenizer": {"type": "byte"},
        "sequence": {"length": length},
        "split": {"validation": 0.0},
        "loader": {"drop_last": drop_last},
    }
    return plan(resolved(language(TINY, data=data, training=training), content), content).steps


def walk(samples: int, batch: int, drop_last: bool, counting: str, budget: int) -> tuple[int, int]:
    """Steps and samples of a run that stops at `budget` steps or samples, walked batch by batch."""
    steps = seen = 0
    while True:
        left = samples
        while left > 0 and not (drop_last and left < batch):
            steps, seen, left = steps + 1, seen + min(batch, left), left - batch
            if (steps if counting == "steps" else seen) >= budget:
                return steps, seen


@given(st.integers(1, 60), st.integers(1, 25), st.booleans(), st.integers(1, 4))
def test_epochs(rows: int, batch: int, drop_last: bool, epochs: int) -> None:
    steps = table_steps(rows, {"epochs": epochs, "batch_size": batch}, drop_last)
    if drop_last and rows < batch:
        assert (steps.per_epoch, steps.total) == (0, None)
        assert steps.unknown
        return
    total, seen = walk(rows, batch, drop_last, "steps", epochs * (rows // batch if drop_last else -(-rows // batch)))
    assert (steps.total, steps.samples, steps.epochs, steps.tokens) == (total, seen, epochs, None)


@given(st.integers(1, 60), st.integers(1, 25), st.booleans(), st.integers(1, 40))
def test_max_steps(rows: int, batch: int, drop_last: bool, limit: int) -> None:
    if drop_last and rows < batch:
        return
    steps = table_steps(rows, {"max_steps": limit, "batch_size": batch}, drop_last)
    assert (steps.total, steps.samples) == walk(rows, batch, drop_last, "steps", limit)


@given(st.integers(20, 300), st.integers(2, 9), st.integers(1, 12), st.booleans(), st.integers(1, 900))
def test_max_tokens_end_with_the_step_that_reaches_them(
    tokens: int, length: int, batch: int, drop_last: bool, limit: int
) -> None:
    windows = (tokens - 1) // length
    if drop_last and windows < batch:
        return
    steps = text_steps(tokens, length, {"max_tokens": limit, "batch_size": batch}, drop_last)
    total, seen = walk(windows, batch, drop_last, "samples", -(-limit // length))
    assert (steps.total, steps.samples, steps.tokens) == (total, seen, seen * length)


def test_seconds_leave_the_total_unknown_and_say_why() -> None:
    steps = table_steps(50, {"max_seconds": 60, "batch_size": 8})
    assert steps.total is None
    assert steps.samples is None
    assert steps.unknown is not None
    assert "max_seconds" in steps.unknown
    assert steps.per_epoch == 7


def test_a_learned_tokenizer_makes_counts_estimates() -> None:
    content = text(30_000)
    data = {"source": {"type": "text", "dataset": "set@1"}, "tokenizer": {"type": "bpe", "vocab_size": 300}}
    predicted = plan(resolved(language(TINY, data=data), content), content)
    assert predicted.samples.estimated
    assert predicted.steps.estimated
    exact = plan(resolved(language(TINY), content), content)
    assert not exact.samples.estimated
    assert not exact.steps.estimated


@pytest.mark.parametrize("rows", [7, 100, 1797])
def test_splits_are_those_of_the_shared_arithmetic(rows: int) -> None:
    content = table(rows, 3)
    data = {"source": {"type": "csv", "dataset": "set@1"}, "split": {"validation": 0.15, "test": 0.1}}
    spec = resolved(classifier(SMALL, data=data), content)
    samples = plan(spec, content).samples
    assert samples.train + samples.validation + samples.test == rows
    sizes = split_sizes(rows, spec.data.split)
    assert (samples.train, samples.validation, samples.test) == (sizes.train, sizes.validation, sizes.test)
