"""What no machine will hold is refused by arithmetic alone, and says which fields ask for it."""

import tracemalloc

import pytest

from stoker.errors import SpecError
from stoker.plan import Limits, plan
from tests.support.plan_cases import Json, arrays, classifier, language, pictures, resolved, table, text


def refused(spec_and_facts: tuple, limits: Limits | None = None) -> tuple[str, str]:
    """Pointer and message of the single finding."""
    spec, content = spec_and_facts
    with pytest.raises(SpecError) as caught:
        plan(resolved(spec, content), content, **({"limits": limits} if limits else {}))
    (finding,) = caught.value.findings
    assert finding.code == "estimate_exceeds_limit"
    return finding.pointer, finding.message


def test_an_absurd_decoder() -> None:
    spec = language({"num_layers": 10_000, "hidden_size": 100_000, "num_heads": 4})
    pointer, message = refused((spec, text(10_000)))
    assert pointer == "/model/num_layers"
    assert "model.num_layers = 10000" in message
    assert "model.hidden_size = 100000" in message
    # 12 h² + 13 h per block, two embeddings of 256 and 16 rows, the last norm
    parameters = 10_000 * (12 * 10**10 + 13 * 10**5) + (256 + 16) * 10**5 + 2 * 10**5
    assert f"{parameters:,}" in message
    assert "2,000,000,000,000" in message


def test_an_absurd_perceptron() -> None:
    pointer, message = refused((classifier({"type": "mlp", "hidden_sizes": [8, *[1_000_000] * 999]}), table(100, 3)))
    assert pointer == "/model/hidden_sizes/1"
    assert "1000000" in message


def test_an_absurd_stack() -> None:
    layers: list[Json] = [{"type": "flatten"}, {"type": "linear", "units": 1_000_000}, {"type": "linear", "units": 1_000_000}]
    model = {"type": "layers", "layers": [*layers, {"type": "linear", "units": 10}]}
    pointer, _ = refused((pictures(model), arrays(100, 3, 12, 12)), Limits(parameters=10**11))
    assert pointer == "/model/layers/2"


def test_an_absurd_window_is_blamed_on_the_micro_batch() -> None:
    spec = language({"num_layers": 100, "hidden_size": 4096}, length=1_000_000, training={"epochs": 1, "batch_size": 64})
    pointer, message = refused((spec, text(10**9)))
    assert pointer == "/training/micro_batch_size"
    assert "activations" in message


def test_limits_are_inclusive() -> None:
    content = table(100, 3)
    spec = resolved(classifier({"type": "mlp", "hidden_sizes": [4]}), content)
    predicted = plan(spec, content)
    exact = Limits(predicted.parameters.total, predicted.memory.total_bytes)
    assert plan(spec, content, limits=exact) == predicted
    with pytest.raises(SpecError):
        plan(spec, content, limits=Limits(exact.parameters - 1, exact.memory_bytes))
    with pytest.raises(SpecError):
        plan(spec, content, limits=Limits(exact.parameters, exact.memory_bytes - 1))


def test_nothing_is_allocated_before_the_refusal() -> None:
    content = text(10_000)
    spec = resolved(language({"num_layers": 10_000, "hidden_size": 100_000}), content)
    tracemalloc.start()
    try:
        with pytest.raises(SpecError):
            plan(spec, content)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_layers_that_do_not_fit_are_refused_even_where_no_rule_looked() -> None:
    layers: list[Json] = [{"type": "flatten"}, {"type": "conv", "channels": 4}, {"type": "linear", "units": 10}]
    content = arrays(100, 3, 12, 12)
    with pytest.raises(SpecError) as caught:
        plan(resolved(pictures({"type": "layers", "layers": layers}), content), content)
    assert caught.value.findings[0].pointer == "/model/layers"


def test_a_spec_that_leaves_sizes_open_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        plan(classifier({"type": "mlp"}), table(100, 3))
    assert caught.value.findings[0].code == "unresolved"
