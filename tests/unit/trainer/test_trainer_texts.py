"""Texts of a table: which tokens they become, and that padding changes nothing that a model says of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from stoker.spec.data import Data
from stoker.spec.model import Model
from tests.support.samples import inputs_of, targets_of
from worker.trainer.data import Dataset, Description, Wanted, build_data
from worker.trainer.errors import DataProblem
from worker.trainer.model import build_model
from worker.trainer.runtime.world import World

MODEL: TypeAdapter[Model] = TypeAdapter(Model)
WORLD = World(0, 1, torch.device("cpu"), 0, 1)
VOCABULARY, LENGTH = 21, 12
ENCODER: dict[str, Any] = {"type": "transformer_encoder", "hidden_size": 16, "num_layers": 2, "num_heads": 2}
READERS = [
    ENCODER,
    ENCODER | {"pooling": "first", "pooler": True, "norm_placement": "post"},
    ENCODER | {"num_heads": 4, "num_kv_heads": 2, "position": {"type": "rope"}, "attention_softcap": 5.0},
    {"type": "rnn", "hidden_size": 8},
    {"type": "lstm", "hidden_size": 8, "num_layers": 2, "proj_size": 4},
    {"type": "gru", "hidden_size": 8},
]


def reader(spec: dict[str, Any], length: int = LENGTH) -> nn.Module:
    torch.manual_seed(0)
    return build_model(MODEL.validate_json(json.dumps(spec)), (length,), 3, text=True, vocabulary=VOCABULARY).eval()


@pytest.mark.parametrize("spec", READERS, ids=lambda spec: f"{spec['type']}-{len(spec)}")
def test_padding_changes_nothing(spec: dict[str, Any]) -> None:
    """Against the same model on each text alone, without any padding."""
    model, random = reader(spec), torch.Generator().manual_seed(1)
    texts = [torch.randint(0, VOCABULARY - 1, (size,), generator=random) for size in (1, 5, LENGTH)]
    together = torch.full((3, LENGTH), VOCABULARY - 1)
    for row, ids in zip(together, texts, strict=True):
        row[: len(ids)] = ids
    said = model(together)
    alone = torch.cat([model(ids[None]) for ids in texts])
    assert said.shape == (3, 3)
    assert torch.allclose(said, alone, rtol=0, atol=1e-6)
    assert not torch.allclose(said[1], model(texts[1][None, :4])[0], rtol=0, atol=3e-6), "every token of the text counts"
    said.sum().backward()
    embedding = next(m for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings == VOCABULARY)
    assert embedding.weight.grad is not None
    assert not embedding.weight.grad[VOCABULARY - 1].any(), "padding learns nothing"
    assert embedding.weight.grad[texts[2]].any(1).all()


@pytest.mark.parametrize("spec", READERS, ids=lambda spec: f"{spec['type']}-{len(spec)}")
def test_an_empty_text_is_something(spec: dict[str, Any]) -> None:
    said = reader(spec)(torch.full((2, LENGTH), VOCABULARY - 1))
    assert said.isfinite().all()


def read(tmp_path: Path, table: str, wanted: Wanted | None = None, **data: Any) -> Dataset:
    folder = tmp_path / "data" / "d@1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.csv").write_text(table)
    source = {"type": "csv", "dataset": "d@1", "text": "review"}
    spec = Data.model_validate_json(
        json.dumps({"source": source, "split": {"strategy": "contiguous", "validation": 0.25}} | data)
    )
    return build_data(spec, wanted or Wanted(True, ("t",)), None, tmp_path, seed=0, world=WORLD, learned=None)


TABLE = 'review,t,w\nabc,yes,1\nHallo Welt,no,2\n"a, b",yes,3\n"",no,4\n'


def test_texts_are_cut_and_padded_and_classes_keep_their_names(tmp_path: Path) -> None:
    data = read(tmp_path, TABLE, sequence={"length": 5})
    assert inputs_of(data.train).tolist() == [
        [97, 98, 99, 256, 256],
        [72, 97, 108, 108, 111],
        [97, 44, 32, 98, 256],
    ]
    assert targets_of(data.train).tolist() == [1, 0, 1]
    assert inputs_of(data.validation).tolist() == [[256] * 5]
    assert (data.about.shape, data.about.outputs, data.about.classes) == ((5,), 2, ("no", "yes"))
    assert data.about.vocabulary == 257


def test_weights_and_several_numbers_come_with_texts(tmp_path: Path) -> None:
    weighted = read(tmp_path, TABLE, Wanted(True, ("t",), weights="w"), sample_weight_column="w")
    assert targets_of(weighted.train).tolist() == [[1, 1], [0, 2], [1, 3]]
    numbers = read(tmp_path, TABLE, Wanted(False, ("w",)))
    assert targets_of(numbers.train).tolist() == [[1], [2], [3]]


def test_byte_pairs_are_learned_from_training_texts_and_remembered(tmp_path: Path) -> None:
    rows = "".join(f"the cat and the dog,{i % 2}\n" for i in range(12)) + "".join(f"zzzzzzzzzzzz,{i % 2}\n" for i in range(4))
    data = read(tmp_path, "review,t\n" + rows, tokenizer={"type": "bpe", "vocab_size": 280}, sequence={"length": 16})
    codec = data.about.codec
    assert codec is not None
    assert len(codec.encode("the cat and the dog")) < 12, "words of the training split are joined"
    assert len(codec.encode("zzzzzzzzzzzz")) == 12, "those held out are not"
    assert codec.decode(i for i in inputs_of(data.train)[0].tolist() if i < codec.rows) == "the cat and the dog"
    data.about.save(tmp_path)
    again = Description.load(tmp_path)
    assert again.vocabulary == 281
    assert torch.equal(again.prepared(["the cat and the dog", "new"]), data.about.prepared(["the cat and the dog", "new"]))


@pytest.mark.parametrize(
    ("table", "said"),
    [("review,t\n1,0\n2,1\n", "holds int64, not text"), ("other,t\na,0\nb,1\n", "there is no column 'review'")],
)
def test_what_is_no_text_is_refused(table: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataProblem, match=said):
        read(tmp_path, table)
