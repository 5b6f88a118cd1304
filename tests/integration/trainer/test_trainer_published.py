"""A published encoder reads texts with its own tokenizer: what a run says at its first step is what transformers says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stoker.events import Notice
from tests.support.late import Late
from tests.support.trainer_runs import Nursery, events, final_checkpoint, log, workspace
from tests.unit.trainer.test_trainer_published_tokenizer import word_pieces
from worker.trainer.predict import load

transformers = Late("transformers")

ROWS = [("In the beginning", "a"), ("god created the heaven and the earth", "b"), ("it was good", "a"), ("and", "b")] * 4


def spec(rows: int) -> dict[str, Any]:
    return {
        "task": {"type": "classification", "target": "label", "num_classes": 2},
        "model": {
            "type": "transformer_encoder",
            "num_layers": 2,
            "hidden_size": 16,
            "num_heads": 2,
            "ffn_size": 32,
            "position": {"type": "learned"},
            "segments": 2,
            "embedding_norm": True,
            "normalization": {"type": "layer", "eps": 1e-12},
            "norm_placement": "post",
        },
        "data": {
            "source": {"type": "csv", "dataset": "set@1", "text": "text"},
            "split": {"strategy": "stratified", "validation": 0.0},
            "tokenizer": {"type": "file", "source": "bert@1", "vocab_size": rows},
            "sequence": {"length": 12},
        },
        "initialization": {
            "start": {
                "type": "pretrained",
                "source": "bert@1",
                "names": "huggingface",
                "exclude_keys": ["pooler.*"],
                "reset_head": True,
            }
        },
        "loss": {"type": "cross_entropy"},
        "optimizer": {"type": "sgd", "lr": 1e-12},
        "training": {"max_steps": 1, "batch_size": 8, "micro_batch_size": 8, "gradient_accumulation_steps": 1},
        "evaluation": {"metrics": []},
    }


@pytest.mark.parametrize("ranks", [1, 2])
def test_outputs_are_those_of_transformers(nursery: Nursery, tmp_path: Path, ranks: int) -> None:
    inner, weights = word_pieces(), tmp_path / "run" / "data" / "bert@1"
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=inner.get_vocab_size(),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    bert = transformers.BertModel(config).eval()
    job = spec(config.vocab_size)
    if ranks > 1:
        job |= {"distributed": {"strategy": "ddp", "processes_per_node": 2}}
        job["training"] |= {"micro_batch_size": 4}
    workspace(tmp_path / "run", job)
    bert.save_pretrained(weights)
    inner.save(str(weights / "tokenizer.json"))
    table = "\n".join(["text,label", *(",".join(row) for row in ROWS)]) + "\n"
    (tmp_path / "run" / "data" / "set@1" / "rows.csv").write_text(table)
    assert nursery.run(tmp_path / "run", ranks) == [0] * ranks, log(tmp_path / "run")
    said = next(e for e in events(tmp_path / "run") if isinstance(e, Notice) and e.code == "weights_loaded")
    assert (said.data["missing"], said.data["unexpected"]) == ([], [])
    assert sorted(said.data["fresh"]) == ["head.bias", "head.weight"]
    texts, model = [text for text, _ in ROWS[:4]], load(final_checkpoint(tmp_path / "run"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(weights / "tokenizer.json"), pad_token="[UNK]")
    ready = tokenizer(texts, padding=True, truncation=False, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        hidden, seen = bert(**ready).last_hidden_state, ready["attention_mask"][..., None]
        pooled = (hidden * seen).sum(1) / seen.sum(1)
        wanted = model.model.head(pooled)
    np.testing.assert_allclose(model.outputs(texts), wanted.numpy(), rtol=0, atol=1e-6)
    assert json.loads((final_checkpoint(tmp_path / "run") / "tokenizer.json").read_text())["type"] == "file"
