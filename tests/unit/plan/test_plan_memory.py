"""Predicted memory of a training step, against the most that PyTorch held at once while the trainer's parts made one."""

from typing import Any

import pytest

from stoker.plan import plan
from stoker.spec import JobSpec
from tests.support.plan_cases import Json, arrays, classifier, language, pictures, resolved, table, text
from tests.support.plan_measure import peak_of_training

TOLERANCE = 0.08
"""Share of the measured peak, for runs of 120 to 500 MB."""

TABLE, PICTURES, TEXT = table(100, 100), arrays(100, 3, 64, 64), text(100_000)
WIDE: Json = {"type": "mlp", "hidden_sizes": [3000, 3000, 2000]}
DEEP: Json = {"type": "mlp", "hidden_sizes": [500] * 8, "normalization": {"type": "batch"}, "dropout": 0.1}
BLOCK: list[Json] = [{"type": "conv", "channels": 32, "padding": 1}, {"type": "norm"}, {"type": "activation"}]
CONVOLUTIONS: Json = {
    "type": "layers",
    "layers": [
        *BLOCK,
        {"type": "residual", "layers": BLOCK},
        {"type": "pool"},
        {"type": "conv", "channels": 64, "padding": 1},
        {"type": "activation"},
        {"type": "pool", "kind": "global_avg"},
        {"type": "linear", "units": 10},
    ],
}
GPT: Json = {"num_layers": 6, "hidden_size": 256, "num_heads": 4}
HEAVY: Json = {"num_layers": 4, "hidden_size": 768, "num_heads": 4}


def steps(batch: int, **more: Any) -> Json:
    return {"training": {"max_steps": 2, "batch_size": batch, **more}}


def vocabulary(size: int) -> JobSpec:
    data = {"source": {"type": "text", "dataset": "set@1"}, "tokenizer": {"type": "bpe", "vocab_size": size}}
    return language({"num_layers": 2, "hidden_size": 256, "num_heads": 4}, data=data, **steps(8))


@pytest.mark.parametrize(
    ("spec", "content"),
    [
        pytest.param(language(GPT, length=256, **steps(8)), TEXT, id="gpt-activations"),
        pytest.param(language(GPT, length=256, **steps(8, micro_batch_size=4)), TEXT, id="gpt-accumulated"),
        pytest.param(language(GPT, length=256, precision={"mode": "bf16_mixed"}, **steps(8)), TEXT, id="gpt-bf16"),
        pytest.param(language(HEAVY, length=64, **steps(2)), TEXT, id="gpt-weights"),
        pytest.param(language(HEAVY, length=64, precision={"mode": "bf16_pure"}, **steps(4)), TEXT, id="gpt-pure"),
        pytest.param(language(HEAVY, length=64, **steps(4, micro_batch_size=2)), TEXT, id="gpt-weights-accumulated"),
        pytest.param(vocabulary(30_000), TEXT, id="gpt-vocabulary"),
        pytest.param(classifier(WIDE, **steps(64)), TABLE, id="mlp-weights"),
        pytest.param(classifier(WIDE, optimizer={"type": "sgd"}, **steps(64)), TABLE, id="mlp-sgd"),
        pytest.param(classifier(WIDE, optimizer={"type": "sgd", "momentum": 0.9}, **steps(64)), TABLE, id="mlp-momentum"),
        pytest.param(classifier(WIDE, optimizer={"type": "adam", "amsgrad": True}, **steps(64)), TABLE, id="mlp-amsgrad"),
        pytest.param(classifier(DEEP, **steps(4096)), TABLE, id="mlp-activations"),
        pytest.param(pictures(CONVOLUTIONS, **steps(64)), PICTURES, id="convolutions"),
    ],
)
def test_peak_of_a_step(spec: JobSpec, content: Any) -> None:
    spec = resolved(spec, content)
    memory = plan(spec, content).memory
    measured = peak_of_training(spec, content)
    predicted = memory.fresh_bytes - memory.runtime_bytes - memory.dataset_bytes
    assert 120e6 < measured < 520e6
    assert predicted == pytest.approx(measured, rel=TOLERANCE)


def test_parts_add_up() -> None:
    memory = plan(resolved(language(GPT, **steps(8, micro_batch_size=4)), TEXT), TEXT).memory
    standing = memory.runtime_bytes + memory.dataset_bytes + memory.weights_bytes + memory.buffers_bytes + memory.optimizer_bytes
    assert memory.fresh_bytes == standing + memory.gradients_bytes + memory.activations_bytes + memory.workspace_bytes
    assert memory.rank_bytes == max(memory.fresh_bytes, memory.resumed_bytes)


def test_a_resumed_run_reads_into_what_stands_and_a_save_in_the_background_holds_it_twice() -> None:
    memory = plan(resolved(classifier(WIDE, **steps(64)), TABLE), TABLE).memory
    assert memory.resumed_bytes == memory.fresh_bytes
    assert memory.saving_bytes == memory.weights_bytes + memory.optimizer_bytes
    waits = resolved(classifier(WIDE, checkpoint={"background": "off"}, **steps(64)), TABLE)
    assert plan(waits, TABLE).memory.saving_bytes == 0


def test_reading_a_large_data_set_may_be_the_peak() -> None:
    content = table(10_000_000, 100)
    memory = plan(resolved(classifier({"type": "mlp", "hidden_sizes": [8]}), content), content).memory
    assert memory.dataset_bytes >= 10_000_000 * (100 * 4 + 8)
    assert memory.fresh_bytes == memory.runtime_bytes + memory.dataset_bytes + memory.loading_bytes


def test_every_rank_counts() -> None:
    alone = plan(resolved(classifier(WIDE, **steps(64)), TABLE), TABLE)
    both = resolved(classifier(WIDE, distributed={"strategy": "ddp", "processes_per_node": 2}, **steps(128)), TABLE)
    memory = plan(both, TABLE).memory
    assert memory.total_bytes == 2 * memory.rank_bytes
    assert memory.weights_bytes == alone.memory.weights_bytes
    assert memory.activations_bytes == alone.memory.activations_bytes
    assert memory.communication_bytes == 25 << 20


@pytest.mark.parametrize("mode", ["fp32", "bf16_pure"])
def test_an_average_is_held_beside_the_weights(mode: str) -> None:
    def planned(**more: Any) -> Any:
        return plan(resolved(classifier(DEEP, precision={"mode": mode}, **steps(64, **more)), TABLE), TABLE)

    plain, ema, swa = planned(), planned(ema={}), planned(swa={"start": {"steps": 1}})
    assert plain.memory.average_bytes == 0
    assert ema.memory.average_bytes == 4 * plain.parameters.total
    assert swa.memory.average_bytes == ema.memory.average_bytes + plain.memory.buffers_bytes
    assert ema.memory.fresh_bytes == plain.memory.fresh_bytes + ema.memory.average_bytes


def test_the_best_weights_are_held_where_early_stopping_restores_them() -> None:
    def best(**stopping: bool) -> int:
        return plan(resolved(classifier(WIDE, **steps(64, early_stopping=stopping)), TABLE), TABLE).memory.best_bytes

    assert best(restore_best=True) == plan(resolved(classifier(WIDE, **steps(64)), TABLE), TABLE).memory.weights_bytes
    assert best(restore_best=False) == 0


def test_who_teaches_stands_beside_who_learns() -> None:
    """Whole on every rank, whatever becomes of the model that learns."""
    teacher, student = resolved(classifier(WIDE, **steps(64)), TABLE), resolved(classifier(DEEP, **steps(64)), TABLE)
    alone, taught = plan(student, TABLE).memory, plan(student, TABLE, teacher=teacher).memory
    assert alone.teacher_bytes == 0
    assert taught.teacher_bytes == plan(teacher, TABLE).memory.weights_bytes
    assert taught.fresh_bytes == alone.fresh_bytes + taught.teacher_bytes
    shards = resolved(classifier(DEEP, distributed={"strategy": "fsdp"}, **steps(64)), TABLE)
    assert plan(shards, TABLE, teacher=teacher).memory.teacher_bytes == taught.teacher_bytes
