"""What shards and cut layers save, on paper."""

from typing import Any

import pytest

from stoker.plan import plan
from stoker.plan.prediction import MemoryView
from tests.support.plan_cases import Json, language, resolved, text

TEXT = text(100_000)
GPT: Json = {"num_layers": 6, "hidden_size": 256, "num_heads": 4}


def _memory(distributed: Json | None = None, **training: Any) -> MemoryView:
    spec = language(GPT, length=64, training={"max_steps": 2, "batch_size": 16, "micro_batch_size": 4, **training})
    if distributed is not None:
        spec = language(
            GPT,
            length=64,
            training={"max_steps": 2, "batch_size": 16, "micro_batch_size": 4, **training},
            distributed={"processes_per_node": 4, **distributed},
        )
    return plan(resolved(spec, TEXT), TEXT).memory


def test_four_ranks_hold_a_quarter_of_the_state_each() -> None:
    whole, shards = _memory({"strategy": "ddp"}), _memory({"strategy": "fsdp"})
    assert shards.weights_bytes == pytest.approx(whole.weights_bytes / 4, rel=1e-6)
    assert shards.optimizer_bytes == pytest.approx(whole.optimizer_bytes / 4, rel=1e-6)
    assert shards.gradients_bytes == pytest.approx(whole.gradients_bytes / 4, rel=1e-6)
    assert shards.activations_bytes == whole.activations_bytes


def test_copies_hold_more_and_gradients_that_add_up_are_whole() -> None:
    whole, copies = _memory({"strategy": "ddp"}), _memory({"strategy": "fsdp", "replicate": 2})
    assert copies.weights_bytes == pytest.approx(whole.weights_bytes / 2, rel=1e-6)
    added = _memory({"strategy": "fsdp"}, batch_size=32)
    assert added.gradients_bytes == whole.gradients_bytes
    assert added.weights_bytes == pytest.approx(whole.weights_bytes / 4, rel=1e-6)


def test_weights_that_are_kept_after_the_forward_pass_count() -> None:
    given_back, kept = _memory({"strategy": "fsdp"}), _memory({"strategy": "fsdp", "reshard_after_forward": False})
    assert kept.communication_bytes > given_back.communication_bytes


def test_cut_layers_keep_less_and_cut_streams_less_still() -> None:
    whole = _memory({"strategy": "ddp"}, batch_size=16)
    cut = _memory({"strategy": "ddp", "tensor_parallel": {"degree": 2}}, batch_size=8)
    streams = _memory({"strategy": "ddp", "tensor_parallel": {"degree": 2, "sequence_parallel": True}}, batch_size=8)
    assert cut.weights_bytes == pytest.approx(whole.weights_bytes / 2, rel=1e-6)
    assert whole.activations_bytes / 2 < streams.activations_bytes < cut.activations_bytes < whole.activations_bytes
    norms = (2 * 6 + 1) * 64 * 256 * 4 * 4
    assert cut.activations_bytes - streams.activations_bytes == norms // 2


def test_every_rank_begins_with_the_whole_model() -> None:
    memory, whole = _memory({"strategy": "fsdp"}), _memory()
    assert memory.fresh_bytes >= memory.runtime_bytes + whole.weights_bytes
