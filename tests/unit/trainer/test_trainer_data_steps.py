"""Fitted steps: in which order they are fitted, that any kind is saved and applied again, and checkpoints from before there were any.

`checkpoints_before_steps` was written by commit ca1d92b, with what its models answered.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from stoker.spec.data import ByteTokenizer, Data, Standard
from tests.support.samples import inputs_of
from worker.trainer.data import Description, Wanted, build_data
from worker.trainer.data.normalization import Normalize, Scaling
from worker.trainer.data.sequence import Padding
from worker.trainer.data.step import RAGGED, Fitted, State, fit_steps, shape_after
from worker.trainer.data.steps import KINDS
from worker.trainer.data.tokenizer import Tokenization, learn_codec
from worker.trainer.predict import load
from worker.trainer.runtime.world import World

BEFORE = Path(__file__).parent / "checkpoints_before_steps"
ANSWERS = json.loads((BEFORE / "answers.json").read_text())
ALONE = World(0, 1, torch.device("cpu"), 0, 1)
INPUTS: dict[str, Any] = {"numbers": [[1, 2, 3], [4, 5, 6.5]], "texts": ["good bad", "a much longer text", ""]}


def before(name: str) -> Path:
    return BEFORE / name / "step-00000002"


@dataclass(frozen=True)
class Clipping(Fitted):
    """A kind that nothing but this test knows."""

    kind: ClassVar[str] = "clipping"
    highest: torch.Tensor
    names: tuple[str, ...]
    weight: float

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        return torch.minimum(values, self.highest) * self.weight


@dataclass(frozen=True)
class Clip:
    makes: ClassVar[type[Fitted]] = Clipping

    def fit(self, train: torch.Tensor, before: Sequence[Fitted]) -> Clipping:
        return Clipping(train.amax(0), tuple(step.kind for step in before), 0.5)


def test_steps_are_fitted_in_order_on_what_the_steps_before_leave() -> None:
    train = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    (scaling, clipping), values = fit_steps((Normalize(Standard()), Clip()), train, ())
    assert isinstance(scaling, Scaling)
    assert isinstance(clipping, Clipping)
    assert scaling.shift.tolist() == [2, 20]
    assert clipping.highest.tolist() == [1, 1], "of scaled numbers"
    assert clipping.names == ("scaling",)
    assert values.tolist() == [[-0.5, -0.5], [0.5, 0.5]]


def test_a_step_that_was_learned_is_not_fitted_again() -> None:
    learned = Scaling(torch.tensor([100.0]), torch.tensor([4.0]))
    (scaling, clipping), values = fit_steps((Normalize(Standard()), Clip()), torch.tensor([[104.0], [108.0]]), (learned,))
    assert scaling is learned
    assert isinstance(clipping, Clipping)
    assert clipping.highest.tolist() == [2]
    assert values.tolist() == [[0.5], [1.0]]


def test_training_data_of_a_later_attempt_uses_the_saved_steps(tmp_path: Path) -> None:
    root = tmp_path / "data" / "set@1"
    root.mkdir(parents=True)
    np.save(root / "x.npy", np.arange(24, dtype=np.float32).reshape(8, 3))
    np.save(root / "y.npy", np.arange(8) % 2)
    spec = Data.model_validate_json('{"source": {"type": "arrays", "dataset": "set@1"}, "normalization": {"type": "standard"}}')
    learned = Description((3,), 2, steps=(Scaling(torch.zeros(3), torch.full((3,), 10.0)),))
    data = build_data(spec, Wanted(True), None, tmp_path, seed=1, world=ALONE, learned=learned)
    assert data.about.steps == learned.steps
    assert inputs_of(data.train).max() <= 2.3


def test_any_kind_of_step_is_saved_and_applied_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The description, the checkpoint and prediction name no kind."""
    model = load(before("numbers"))
    clipping = Clipping(torch.tensor([0.5, 0.25, 1.0]), ("a", "b"), 2.0)
    about = replace(model.about, steps=(*model.about.steps, clipping))
    assert sorted(about.save(tmp_path)) == ["clipping.safetensors", "data.json", "scaling.safetensors"]
    assert {path.name for path in tmp_path.iterdir()} == {"clipping.safetensors", "data.json", "scaling.safetensors"}
    with pytest.raises(
        ValueError, match=r"data\.json: step 'clipping' is unknown; this version has scaling, tokenizer, padding;"
    ):
        Description.load(tmp_path)
    monkeypatch.setitem(KINDS, "clipping", Clipping)
    again = Description.load(tmp_path)
    assert again.steps[1].state().values == {"names": ("a", "b"), "weight": 2.0}
    rows = np.float32([[1, 2, 3], [40, 50, 65]])
    scaling = again.scaling
    assert scaling is not None
    expected = torch.minimum(scaling.apply(torch.from_numpy(rows)), clipping.highest) * 2
    assert torch.equal(again.prepared(rows), expected)
    with torch.no_grad():
        np.testing.assert_array_equal(replace(model, about=again).outputs(rows), model.model(expected).numpy())


def test_a_step_of_other_fields_is_refused() -> None:
    state = State({"clip": 3}, {"shift": torch.zeros(1), "scale": torch.ones(1)})
    with pytest.raises(ValueError, match="step scaling has the fields clip, scale, shift; this version reads shift, scale"):
        Scaling.from_state(state)
    with pytest.raises(ValueError, match=r"tokenizer\.json is missing"):
        Tokenization.from_state(State({"limit": 3}))


def test_texts_become_rows_of_one_length_and_say_their_shape() -> None:
    tokens = Tokenization(learn_codec(ByteTokenizer(), "", "", Path()), 4)
    steps = (tokens, Padding(4, tokens.padding))
    assert (shape_after(steps[:1], ()), shape_after(steps, ())) == ((RAGGED,), (4,))
    about = Description((4,), 2, steps=steps)
    assert about.prepared(["ab", "abcdef", ""]).tolist() == [[97, 98, 256, 256], [97, 98, 99, 100], [256] * 4]
    assert (about.vocabulary, about.padding, about.padded) == (257, 256, True)
    stream = Description((4,), 256, steps=(replace(tokens, limit=None),))
    assert (stream.vocabulary, stream.padding, stream.padded) == (None, None, False)
    with pytest.raises(ValueError, match=r"samples have shape \(\), the model was trained on \(4,\)"):
        stream.prepared(["ab"])
    with pytest.raises(ValueError, match=r"samples have shape \(1,\), the model was trained on \(3,\)"):
        Description((3,), 2, steps=(Scaling(torch.zeros(3), torch.ones(3)),)).prepared([[1.0]])


@pytest.mark.parametrize("name", ["numbers", "texts"])
def test_a_checkpoint_from_before_steps_predicts_the_same(name: str) -> None:
    model = load(before(name))
    np.testing.assert_allclose(model.outputs(INPUTS[name]), ANSWERS[name], rtol=1e-5, atol=1e-6)
    assert set(model.predict(INPUTS[name])) <= {"yes", "no"}


def test_a_stream_from_before_steps_is_continued_the_same() -> None:
    model = load(before("stream"))
    assert model.generate("the ", tokens=12, temperature=0.0) == ANSWERS["stream"]
    with pytest.raises(ValueError, match=r"no outputs for samples: use generate\(prompt\)"):
        model.outputs(["the cat"])


@pytest.mark.parametrize(
    ("name", "kinds"), [("numbers", ["scaling"]), ("texts", ["tokenizer", "padding"]), ("stream", ["tokenizer"])]
)
def test_a_checkpoint_from_before_steps_is_written_with_the_same_files(name: str, kinds: list[str], tmp_path: Path) -> None:
    """An outside program that read scaling.safetensors or tokenizer.json goes on to do so."""
    about = Description.load(before(name))
    assert [step.kind for step in about.steps] == kinds
    assert about.step(Tokenization) is None or about.steps[0].state().values == {"limit": 6 if name == "texts" else None}
    files = about.save(tmp_path)
    for file in files:
        if file != "data.json":
            assert (tmp_path / file).read_bytes() == (before(name) / file).read_bytes()
    old, new = (json.loads((path / "data.json").read_text()) for path in (before(name), tmp_path))
    assert [step["type"] for step in new.pop("steps")] == kinds
    assert new == {key: value for key, value in old.items() if key != "padded"}
    again = Description.load(tmp_path)
    assert (again.shape, again.padding, again.vocabulary) == (about.shape, about.padding, about.vocabulary)
    if name in INPUTS:
        assert torch.equal(again.prepared(INPUTS[name]), about.prepared(INPUTS[name]))
