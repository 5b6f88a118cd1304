"""Sources, splits, normalization and tokenizers: what reaches the model, and what a misfit says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from stoker.spec.data import Bpe, ByteTokenizer, CharTokenizer, Data, MinMax, Split, Standard
from stoker.spec.derived.arithmetic import split_sizes
from tests.support.late import Late
from tests.support.samples import inputs_of, targets_of
from worker.trainer.data import Dataset, Wanted, build_data
from worker.trainer.data.description import Description
from worker.trainer.data.normalization import fit_scaling
from worker.trainer.data.split import split_rows
from worker.trainer.data.tokenizer import Tokenization, learn_codec, load_codec
from worker.trainer.errors import DataProblem, SpecProblem
from worker.trainer.runtime.world import World

model_selection = Late("sklearn.model_selection")

ALONE = World(0, 1, torch.device("cpu"), 0, 1)
CLASSES = Wanted(classes=True, columns=("kind",))


def read(home: Path, data: dict[str, Any], wanted: Wanted | None, classes: int | None = None) -> Dataset:
    spec = Data.model_validate_json(json.dumps(data))
    return build_data(spec, wanted, classes, home, seed=1, world=ALONE, learned=None)


def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data" / "set@1"
    root.mkdir(parents=True)
    return root


CONTIGUOUS = {"strategy": "contiguous", "validation": 0.25, "test": 0.25}


def test_csv_files_are_read_in_name_order(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "b.csv").write_text("w;kind;h\n3;cat;true\n4;dog;false\n")
    (root / "a.csv").write_text("w;kind;h\n1;dog;false\n2;eel;true\n")
    data = read(tmp_path, {"source": {"type": "csv", "dataset": "set@1", "delimiter": ";"}, "split": CONTIGUOUS}, CLASSES)
    assert inputs_of(data.train).tolist() == [[1, 0], [2, 1]]
    assert (inputs_of(data.validation).tolist(), inputs_of(data.test).tolist()) == ([[3, 1]], [[4, 0]])
    assert data.about.classes == ("cat", "dog", "eel")
    assert (targets_of(data.train).tolist(), targets_of(data.validation).tolist()) == ([1, 2], [0])
    assert data.about.columns == ("w", "h")


def test_parquet_columns_in_the_order_asked_for(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1.5, 2, 3, 4], "b": [5, 6, 7, 8], "y": [0.1, 0.2, 0.3, 0.4]}), folder(tmp_path) / "t.parquet")
    source = {"type": "parquet", "dataset": "set@1", "columns": ["b", "a"]}
    data = read(tmp_path, {"source": source, "split": CONTIGUOUS}, Wanted(False, ("y",)))
    assert inputs_of(data.train).tolist() == [[5, 1.5], [6, 2]]
    assert targets_of(data.train).tolist() == pytest.approx(np.float32([[0.1], [0.2]]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,kind\n1,x\n,y\n", "column 'a' is empty at row 2"),
        ("a,kind\n1,x\nred,y\n", "column 'a' holds string"),
        ("a,sort\n1,x\n", "no column 'kind'; the table has a, sort"),
        ("a,a,kind\n1,2,x\n", "column 'a' appears twice"),
        ("a,kind\n1,x\n2\n", "t.csv: cannot be read"),
        ("a,kind\ninf,x\n1,y\n", "column 'a' is not finite at row 1"),
        ("kind\nx\n", "no column beside the target"),
        ("a,kind\n1,1.5\n", "column 'kind' holds fractions"),
    ],
)
def test_a_table_that_does_not_fit_says_where(text: str, message: str, tmp_path: Path) -> None:
    (folder(tmp_path) / "t.csv").write_text(text)
    with pytest.raises(DataProblem, match=message):
        read(tmp_path, {"source": {"type": "csv", "dataset": "set@1"}}, CLASSES)


def test_pictures_one_folder_per_class(tmp_path: Path) -> None:
    root = folder(tmp_path)
    values = np.arange(2 * 6 * 4 * 3, dtype=np.uint8).reshape(2, 6, 4, 3)
    for name, pixels in zip(("cat", "dog"), values, strict=True):
        (root / name).mkdir()
        Image.fromarray(pixels).save(root / name / "1.png")
    source: dict[str, Any] = {"type": "image_folder", "dataset": "set@1"}
    data = read(tmp_path, {"source": source, "split": {"validation": 0.0, "strategy": "random"}}, Wanted(True))
    np.testing.assert_allclose(inputs_of(data.train).numpy(), values.transpose(0, 3, 1, 2) / 255, atol=1e-7)
    assert (data.about.classes, targets_of(data.train).tolist()) == (("cat", "dog"), [0, 1])
    grey = read(
        tmp_path, {"source": source | {"channels": 1, "height": 3, "width": 2}, "split": {"validation": 0.0}}, Wanted(True)
    )
    assert inputs_of(grey.train).shape == (2, 1, 3, 2)
    Image.new("RGB", (9, 9)).save(root / "dog" / "2.png")
    with pytest.raises(DataProblem, match=r"dog/2\.png: is 9 x 9"):
        read(tmp_path, {"source": source}, Wanted(True))
    (root / "dog" / "2.png").write_bytes(b"no picture")
    with pytest.raises(DataProblem, match=r"dog/2\.png: cannot be read"):
        read(tmp_path, {"source": source}, Wanted(True))


def test_text_is_cut_into_windows_that_predict_the_next_token(tmp_path: Path) -> None:
    (folder(tmp_path) / "t.txt").write_bytes(bytes(range(97, 97 + 20)))
    data = read(tmp_path, {"source": {"type": "text", "dataset": "set@1"}, "split": CONTIGUOUS, "sequence": {"length": 4}}, None)
    assert inputs_of(data.train).tolist() == [[97, 98, 99, 100], [101, 102, 103, 104]]
    assert targets_of(data.train).tolist() == [[98, 99, 100, 101], [102, 103, 104, 105]]
    assert inputs_of(data.validation).tolist() == [[107, 108, 109, 110]]
    assert inputs_of(data.test).tolist() == [[112, 113, 114, 115]]


def test_text_that_is_none_or_too_short_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path) / "t.txt"
    path.write_bytes(b"abc")
    with pytest.raises(DataProblem, match=r"sequence\.length"):
        read(tmp_path, {"source": {"type": "text", "dataset": "set@1"}}, None)
    path.write_bytes(b"abc\xff")
    with pytest.raises(DataProblem, match=r"t\.txt: byte 3 is not UTF-8"):
        read(tmp_path, {"source": {"type": "text", "dataset": "set@1"}}, None)
    path.write_bytes(b"abcd" * 100)
    with pytest.raises(SpecProblem, match="contiguous"):
        read(tmp_path, {"source": {"type": "text", "dataset": "set@1"}, "split": {"strategy": "random"}}, None)


@pytest.mark.parametrize("strategy", ["random", "stratified", "contiguous"])
def test_a_split_takes_every_row_once_and_the_planned_number(strategy: Any) -> None:
    spec, classes = Split(strategy=strategy, validation=0.17, test=0.23), torch.randint(0, 5, (101,))
    parts, sizes = split_rows(spec, 101, classes, seed=3), split_sizes(101, spec)
    assert [len(p) for p in (parts.train, parts.validation, parts.test)] == [sizes.train, sizes.validation, sizes.test]
    assert torch.cat([parts.train, parts.validation, parts.test]).sort().values.tolist() == list(range(101))
    again, other = split_rows(spec, 101, classes, seed=3), split_rows(spec, 101, classes, seed=4)
    assert torch.equal(parts.test, again.test)
    assert strategy == "contiguous" or not torch.equal(parts.test, other.test)


def test_stratified_counts_are_those_of_scikit_learn() -> None:
    classes = np.repeat([0, 1, 2], [70, 20, 10])
    parts = split_rows(Split(strategy="stratified", validation=0.0, test=0.2), 100, torch.from_numpy(classes), seed=0)
    _, expected = model_selection.train_test_split(classes, test_size=20, stratify=classes, random_state=0)
    assert np.bincount(classes[parts.test.numpy()]).tolist() == np.bincount(expected).tolist()


def test_normalization_is_fitted_on_the_training_part_alone(tmp_path: Path) -> None:
    root = folder(tmp_path)
    x = np.random.default_rng(0).normal(3, 2, (40, 3)).astype(np.float32)
    x[20:] += 100
    np.save(root / "x.npy", x)
    np.save(root / "y.npy", np.arange(40) % 2)
    spec = {"source": {"type": "arrays", "dataset": "set@1"}, "split": CONTIGUOUS | {"validation": 0.5, "test": 0.0}}
    data = read(tmp_path, spec | {"normalization": {"type": "standard"}}, Wanted(True))
    np.testing.assert_allclose(inputs_of(data.train).numpy(), (x[:20] - x[:20].mean(0)) / x[:20].std(0), atol=1e-5)
    np.testing.assert_allclose(inputs_of(data.validation).numpy(), (x[20:] - x[:20].mean(0)) / x[:20].std(0), atol=1e-4)


def test_scaling_per_channel_or_for_all() -> None:
    x = torch.randn(10, 3, 4, 5) * 2 + 1
    values = x.double().numpy()
    for per_channel, axes in ((True, (0, 2, 3)), (False, (0, 1, 2, 3))):
        low, high = values.min(axes, keepdims=True), values.max(axes, keepdims=True)
        got = fit_scaling(MinMax(per_channel=per_channel), x).apply(x)
        np.testing.assert_allclose(got.numpy(), (values - low) / (high - low), atol=1e-6)
        got = fit_scaling(Standard(per_channel=per_channel), x).apply(x)
        expected = (values - values.mean(axes, keepdims=True)) / values.std(axes, keepdims=True)
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)
    assert fit_scaling(Standard(), torch.ones(5, 2)).apply(torch.ones(5, 2)).tolist() == [[0.0, 0.0]] * 5


TEXT = "In the beginning — God created\n\n the heaven and the earth. \U0001f30d été\n" * 40


@pytest.mark.parametrize("spec", [ByteTokenizer(), CharTokenizer(), Bpe(vocab_size=300, min_frequency=1)], ids=lambda s: s.type)
def test_tokenizers_give_the_text_back_and_count_its_bytes(spec: Any) -> None:
    codec = learn_codec(spec, TEXT, TEXT[:1000], Path())
    ids = codec.encode(TEXT)
    assert codec.decode(ids.tolist()) == TEXT
    assert codec.byte_lengths()[ids].sum() == len(TEXT.encode())
    assert 0 <= ids.min() <= ids.max() < codec.rows == len(codec.byte_lengths())
    assert load_codec(codec.dump()).encode(TEXT).tolist() == ids.tolist()
    assert learn_codec(spec, TEXT, TEXT[:1000], Path()).dump() == codec.dump()


def test_byte_pairs_are_shorter_and_learned_from_the_training_part_alone() -> None:
    codec = learn_codec(Bpe(vocab_size=300, min_frequency=2), "aaaa " * 50 + "zzzz " * 50, "aaaa " * 50, Path())
    assert len(codec.encode("aaaa ")) < 4
    assert len(codec.encode("zzzz")) == 4


def test_a_character_never_seen_has_the_last_id() -> None:
    codec = learn_codec(CharTokenizer(), "abc", "abc", Path())
    assert (codec.rows, codec.encode("cxa").tolist()) == (4, [2, 3, 0])


def test_what_was_learned_is_saved_and_used_again(tmp_path: Path) -> None:
    codec = learn_codec(Bpe(vocab_size=280, min_frequency=1), TEXT, TEXT, Path())
    steps = (fit_scaling(Standard(), torch.randn(9, 3)), Tokenization(codec))
    about = Description((3,), 280, ("x", "y"), ("a",), steps)
    about.save(tmp_path)
    back = Description.load(tmp_path)
    assert (back.shape, back.outputs, back.classes, back.columns) == (about.shape, 280, ("x", "y"), ("a",))
    assert back.scaling is not None
    assert about.scaling is not None
    assert torch.equal(back.scaling.scale, about.scaling.scale)
    assert back.codec is not None
    assert back.codec.dump() == codec.dump()
