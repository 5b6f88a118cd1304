"""Every key explains itself in both languages, in words and as a schema, and nothing that is said is out of date."""

import re

import jsonschema
import pytest

from stoker.document.explain import explain
from stoker.document.grammar import Choice, fields_of, walk
from stoker.document.load import load_file
from stoker.document.presets import preset, presets
from stoker.document.schema import job_schema
from stoker.document.sentences import every_sentence
from stoker.document.suggest import SYNONYMS, VALUE_SYNONYMS
from stoker.errors import SpecError
from stoker.i18n import language, sentences, translated
from stoker.spec.evaluation import MetricName
from stoker.spec.job import JobSpec
from stoker.spec.rules import RULES
from stoker.text import distance, nearest
from tests.support.spec_cases import JOBS, TABLE_JOB, Json, changed

PATHS = sorted({step.path for step in walk(JobSpec)})


@pytest.mark.parametrize("path", PATHS)
def test_every_path_is_explained(path: str) -> None:
    english, chinese = explain(path), explain(path, "zh")
    assert english.text.endswith(".")
    assert chinese.text.endswith("。")
    assert english.type
    assert english.rules == chinese.rules
    assert set(english.affects) <= {"memory", "speed", "quality"}


def test_an_explanation_says_all_there_is() -> None:
    found = explain("optimizer.beta1")
    assert found.text == "Decay of the first moment."
    assert (found.type, found.default, found.required, found.nullable) == ("a number at least 0 and below 1", 0.9, False, False)
    assert {"adam", "adamw"} <= set(found.kinds)
    assert found.rows == ("OPT-06",)
    steps = explain("training.max_steps")
    assert (steps.unit, steps.bounds, steps.nullable) == ("optimizer steps", "between 1 and 2,147,483,647", True)
    assert "no-training-length" in steps.rules


def test_kinds_that_differ_are_told_apart() -> None:
    found = explain("optimizer.lr")
    assert (found.kinds, found.default) == (("sgd",), 0.1)
    assert (("adam", "adamw"), 0.001) in [(each.kinds, each.default) for each in found.variants]
    assert explain("optimizer.sgd.lr").variants == ()
    assert {key.name for key in explain("model.transformer_decoder").keys} == set(
        fields_of(JobSpec)["model"].shape.branches["transformer_decoder"].model_fields  # type: ignore[union-attr]
    )


def test_indices_and_kinds_may_stand_in_a_path() -> None:
    assert explain("model.layers.3.conv.stride").text == explain("model.layers.conv.stride").text
    assert explain("model.layers").type.startswith("a list")
    assert explain("/optimizer/adam/lr").default == 0.001


def test_the_whole_spec() -> None:
    assert [key.name for key in explain().keys] == list(JobSpec.model_fields)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("optimizer.learning_rate", "did you mean `optimizer.lr`?"),
        ("lr", "did you mean `optimizer.lr`?"),
        ("optimiser.lr", "did you mean `optimizer.lr`?"),
        ("model.layers.conv.strid", "did you mean `model.layers.conv.stride`?"),
        ("training.epochs.x", "did you mean `training.epochs`?"),
        ("qqqqqqq", None),
        ("x" * 10_000, None),
        (".".join("abcdefghij" * 100), None),
    ],
)
def test_unknown_paths(path: str, hint: str | None) -> None:
    with pytest.raises(SpecError) as caught:
        explain(path)
    found = caught.value.findings[0]
    assert (found.code, found.hint) == ("unknown-path", hint)
    assert len(found.message) < 150


def test_no_sentence_is_missing_or_stale_in_chinese() -> None:
    assert set(sentences("zh")) == every_sentence()


def test_translations_are_chinese_and_keep_their_holes() -> None:
    holes = re.compile(r"\{\w+\}|`[^`{}]*`")
    units = {"GiB", "MiB", "null"}
    for english, chinese in sentences("zh").items():
        assert sorted(set(re.findall(r"\{\w+\}", english))) == sorted(set(re.findall(r"\{\w+\}", chinese))), english
        assert english in units or re.search("[\u4e00-\u9fff]", chinese), english
        assert {name for name in holes.findall(chinese) if name.startswith("`") and name.isascii()} <= set(
            holes.findall(english)
        ), english


def test_every_field_and_rule_has_a_chinese_sentence() -> None:
    known = sentences("zh")
    assert [step.path for step in walk(JobSpec) if step.field.doc not in known] == []
    assert [rule.id for rule in RULES if rule.message not in known or rule.hint not in known] == []


def test_language_of_a_tag() -> None:
    assert [language(tag) for tag in ("zh_CN.UTF-8", "zh", "ZH-Hant", "en_US", "C", "", None)] == [
        "zh",
        "zh",
        "zh",
        "en",
        "en",
        "en",
        "en",
    ]
    assert translated("no such sentence", "zh") == "no such sentence"


def test_synonyms_lead_to_keys_that_exist() -> None:
    keys = {step.field.name for step in walk(JobSpec)}
    assert {name for names in SYNONYMS.values() for name in names} <= keys
    assert not set(SYNONYMS) & {name for name in fields_of(JobSpec)}
    values = {str(choice) for step in walk(JobSpec) for choice in getattr(step.field.shape, "choices", ())}
    assert set(VALUE_SYNONYMS.values()) <= values


@pytest.mark.parametrize(
    ("a", "b", "edits"), [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("epohcs", "epochs", 1), ("lr", "lr", 0)]
)
def test_edit_distance(a: str, b: str, edits: int) -> None:
    assert distance(a, b) == distance(b, a) == edits


def test_nothing_near_is_no_guess() -> None:
    assert nearest("zzzzzz", ["epochs"]) is None
    assert nearest("x" * 100_000, ["epochs"]) is None


SCHEMA = jsonschema.Draft202012Validator(job_schema())


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(job_schema())
    assert job_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    adam = job_schema()["$defs"]["Adam"]["properties"]
    assert adam["beta1"]["description"] == "Decay of the first moment."
    assert job_schema()["$defs"]["Duration"]["properties"]["steps"]["x-unit"] == "optimizer steps"


@pytest.mark.parametrize("name", JOBS)
def test_the_schema_takes_what_the_grammar_takes(name: str) -> None:
    SCHEMA.validate(JOBS[name][0])


@pytest.mark.parametrize("name", presets())
def test_the_schema_takes_presets(name: str) -> None:
    document = preset(name)
    assert document is not None
    SCHEMA.validate({"extends": f"preset:{name}"})
    SCHEMA.validate({**document.value, "extends": "./data.yaml"})


@pytest.mark.parametrize("missing", TABLE_JOB)
def test_the_schema_knows_what_a_document_must_say(missing: str) -> None:
    rest = {key: value for key, value in TABLE_JOB.items() if key != missing}
    assert not SCHEMA.is_valid(rest)
    assert not SCHEMA.is_valid({**TABLE_JOB, "data": {}})
    SCHEMA.validate({**rest, "extends": "preset:mlp-small"})


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 1},
        {"optimizer": {"lr": 1}},
        {"optimizer": {"type": "adam", "momentum": 0.9}},
        {"training.epochs": "3"},
        {"training.epochs": 0},
        {"evaluation": {"metrics": ["acc"]}},
        {"name": "a b"},
        {"model.hidden_sizes": [0]},
    ],
)
def test_the_schema_refuses_what_the_grammar_refuses(changes: Json) -> None:
    assert not SCHEMA.is_valid(changed(TABLE_JOB, changes))


def test_metrics_may_be_named_alone_if_they_exist() -> None:
    shape = fields_of(type(JobSpec.model_fields["evaluation"].default))["metrics"].shape
    branches = shape.item.branches  # type: ignore[union-attr]
    assert isinstance(shape.item, Choice)  # type: ignore[union-attr]
    assert set(MetricName.__args__) == set(branches)
    SCHEMA.validate(changed(TABLE_JOB, {"evaluation": {"metrics": list(branches)}}))


def test_explanations_of_files_in_the_repository_hold() -> None:
    document = load_file("examples/digits.yaml")
    SCHEMA.validate(document.value)
