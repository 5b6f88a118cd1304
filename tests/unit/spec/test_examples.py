"""The example files are specs, and what the README says of their shapes is so."""

from pathlib import Path

import pytest

from stoker.document.load import compose, load_file
from stoker.document.resolve import resolve
from stoker.facts import ArrayFacts, ArrayFile, DatasetFacts, TableFacts, TextFacts
from stoker.spec.derived.problem import problem_of
from tests.support.spec_cases import column, facts

EXAMPLES = Path(__file__).parents[3] / "examples"
FEATURES = tuple(column(f"p{i}", "integer") for i in range(64))
DIGITS = TableFacts(
    format="csv",
    rows=1797,
    delimiter=",",
    columns=(*FEATURES, column("label", "integer", distinct=10, counts={str(i): 174 for i in range(10)})),
)
ARRAYS = {
    "x.npy": ArrayFile(dtype="<f4", shape=(1797, 1, 8, 8)),
    "y.npy": ArrayFile(dtype="<i8", shape=(1797,), distinct=10, counts={str(i): 174 for i in range(10)}),
}
DIABETES = TableFacts(
    format="csv", rows=442, delimiter=",", columns=tuple(column(name) for name in ("age", "bmi", "bp", "target"))
)
REVIEWS = TableFacts(
    format="csv",
    rows=10_568,
    delimiter=",",
    columns=(
        column("sentence", "string", distinct=10_000),
        column("label", "string", distinct=2, counts={"kind": 5242, "unkind": 5326}),
    ),
)

KNOWN: dict[str, tuple[DatasetFacts, tuple[int, ...], int]] = {
    "digits.yaml": (facts(DIGITS, "digits"), (64,), 10),
    "kjv_gpt.yaml": (facts(TextFacts(bytes=3_000_000, characters=3_000_000, distinct_characters=75), "kjv"), (128,), 256),
    "digits_conv.json": (facts(ArrayFacts(files=ARRAYS), "digit-arrays"), (1, 8, 8), 10),
    "digits_cnn.yaml": (facts(ArrayFacts(files=ARRAYS), "digit-arrays"), (1, 8, 8), 10),
    "reviews.yaml": (facts(REVIEWS, "reviews"), (40,), 2),
    "diabetes.toml": (facts(DIABETES, "diabetes"), (3,), 1),
}


def test_every_example_is_known_here() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix in (".yaml", ".yml", ".json", ".toml")} == set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_examples_resolve_without_a_warning(name: str) -> None:
    known, shape, outputs = KNOWN[name]
    resolved = resolve(compose(load_file(EXAMPLES / name)), known)
    problem = problem_of(resolved.spec, known)
    assert resolved.warnings == ()
    assert (problem.input_shape, problem.outputs) == (shape, outputs)
    assert problem.samples is not None
    assert min(problem.samples.train, problem.samples.validation, problem.samples.test) > 0
