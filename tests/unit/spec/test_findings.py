"""Mistakes in a document: all at once, in its order, each with line, caret and remedy."""

import json

import pytest

from stoker.document.load import Format, compose, load_text, render, report
from stoker.document.messages import GRAMMAR, PLAIN
from stoker.document.resolve import resolve
from stoker.errors import Finding, SpecError
from stoker.facts import DatasetFacts
from stoker.text import MAX_ECHO
from tests.support.spec_cases import ARRAYS, JOBS, TABLE, TABLE_JOB, Json, changed

FIVE = """\
task: {type: classification, target: t}
model: {type: mlp, hidden_size: [8]}
data: {source: {type: csv, dataset: d}}
optimizer:
  learning_rate: 1e-3
  type: adamw
schedule: {type: cosin}
training:
  epochs: "3"
  batch_size: 0
"""

DRAWN = """\
error[unknown-key]: unknown key `model.hidden_size`
  --> job.yaml:2:20
   |
 2 | model: {type: mlp, hidden_size: [8]}
   |                    ^^^^^^^^^^^ did you mean `hidden_sizes`?

error[unknown-key]: unknown key `optimizer.learning_rate`
  --> job.yaml:5:3
   |
 5 |   learning_rate: 1e-3
   |   ^^^^^^^^^^^^^ did you mean `lr`?

error[not-one-of]: `schedule.type` is 'cosin', which is not allowed here
  --> job.yaml:7:18
   |
 7 | schedule: {type: cosin}
   |                  ^^^^^ did you mean `cosine`?
   = allowed: constant, cosine, step, multistep, exponential, polynomial, cyclic, one_cycle, plateau, wsd

error[wrong-type]: `training.epochs` must be a whole number between 1 and 2,147,483,647, not text
  --> job.yaml:9:11
   |
 9 |   epochs: "3"
   |           ^^^ remove the quotes

error[out-of-range]: `training.batch_size` is 0; it must be between 1 and 2,147,483,647
   --> job.yaml:10:15
    |
 10 |   batch_size: 0
    |               ^

5 errors"""


def refused(text: str, form: Format = "yaml", name: str = "job.yaml") -> SpecError:
    with pytest.raises(SpecError) as caught:
        resolve(load_text(text, form, name=name), TABLE)
    return caught.value


def findings(job: Json, lang: str = "en", known: DatasetFacts | None = TABLE) -> list[Finding]:
    with pytest.raises(SpecError) as caught:
        resolve(job, known, lang="zh" if lang == "zh" else "en")
    return list(caught.value.findings)


def test_five_mistakes_are_shown_with_line_caret_and_suggestion() -> None:
    error = refused(FIVE)
    assert str(error) == DRAWN
    assert [each.pointer for each in error.findings] == [
        "/model/hidden_size",
        "/optimizer/learning_rate",
        "/schedule/type",
        "/training/epochs",
        "/training/batch_size",
    ]


def test_the_same_mistakes_without_a_text_give_the_same_findings() -> None:
    with pytest.raises(SpecError) as caught:
        resolve(load_text(FIVE).value, TABLE)
    assert sorted(each.pointer for each in caught.value.findings) == sorted(each.pointer for each in refused(FIVE).findings)


@pytest.mark.parametrize("form", ["json", "toml"])
def test_carets_in_other_formats(form: Format) -> None:
    text = {
        "json": '{\n "task": {"type": "classification", "target": "t"}, "model": {"type": "mlp"},\n "data": {"source": {"type": "csv", '
        '"dataset": "d"}},\n "training": {"epoch": 3}\n}',
        "toml": 'task = {type = "classification", target = "t"}\nmodel.type = "mlp"\ndata.source = {type = "csv", dataset = "d"}\n'
        "[training]\nepoch = 3",
    }[form]
    drawn = str(refused(text, form))
    key, line, column = {"json": ('"epoch"', 4, 15), "toml": ("epoch", 5, 1)}[form]
    assert f"job.yaml:{line}:{column}" in drawn
    assert f"{'^' * len(key)} did you mean `epochs`?" in drawn


CASES: dict[str, tuple[Json, str, str, str]] = {
    "synonym": ({"training.bs": 3}, "/training/bs", "unknown-key", "did you mean `batch_size`?"),
    "edit distance": ({"trainning": {}}, "/trainning", "unknown-key", "did you mean `training`?"),
    "another section": ({"lr": 3}, "/lr", "unknown-key", "this key belongs in `optimizer.lr`"),
    "another section by synonym": ({"wd": 3}, "/wd", "unknown-key", "this key belongs in `optimizer.weight_decay`"),
    "another section, nested": ({"model.batch_size": 3}, "/model/batch_size", "unknown-key", "this key belongs in `training.batch_size`"),
    "nothing like it": ({"training.qqqqqqqqq": 3}, "/training/qqqqqqqqq", "unknown-key", "remove it, or see `stoker explain training`"),
    "no type": ({"optimizer": {"lr": 1}}, "/optimizer/type", "missing", "add `type: …`, one of sgd, adam, adamw, nadam, radam, adamax, rmsprop, adagrad, adadelta, adafactor, lion, muon"),
    "wrong type of type": ({"optimizer": {"type": 3}}, "/optimizer/type", "not-one-of", "use one of sgd, adam, adamw, nadam, radam, adamax, rmsprop, adagrad, adadelta, adafactor, lion, muon"),
    "value synonym": ({"precision": {"mode": "bf16"}}, "/precision/mode", "not-one-of", "did you mean `bf16_mixed`?"),
    "quoted boolean": ({"data.loader": {"shuffle": "true"}}, "/data/loader/shuffle", "wrong-type", "remove the quotes"),
    "two durations": ({"evaluation": {"interval": {"steps": 1, "epochs": 1}}}, "/evaluation/interval", "one-duration", "keep one of them, for example {epochs: 1}"),
    "no duration": ({"evaluation": {"interval": {}}}, "/evaluation/interval", "one-duration", "keep one of them, for example {epochs: 1}"),
    "bad name": ({"name": "a b"}, "/name", "wrong-pattern", "use letters, digits and . _ - only, and start with a letter or digit"),
    "bad metric": ({"evaluation": {"metrics": ["accuracy", "acc"]}}, "/evaluation/metrics/1", "not-one-of", "use one of accuracy, precision, recall, f1, auroc, mae, rmse, r2, perplexity, bits_per_byte, mmd, frechet_distance"),
    "unknown version": ({"api_version": "stoker/v9"}, "/api_version", "unknown-version", "use one of stoker/v1"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_hints(name: str) -> None:
    changes, pointer, code, hint = CASES[name]
    assert [(each.pointer, each.code, each.hint) for each in findings(changed(TABLE_JOB, changes))] == [(pointer, code, hint)]


EITHER: dict[str, tuple[object, str, str]] = {
    "neither": ("a", "/model/layers/0/kernel_size", "wrong-type"),
    "number out of range": (0, "/model/layers/0/kernel_size", "out-of-range"),
    "entry out of range": ([3, 0], "/model/layers/0/kernel_size/1", "out-of-range"),
    "entry of another type": ([3, "a"], "/model/layers/0/kernel_size/1", "wrong-type"),
    "too many entries": ([3, 3, 3], "/model/layers/0/kernel_size", "wrong-length"),
    "none": ([], "/model/layers/0/kernel_size", "wrong-length"),
    "null": (None, "/model/layers/0/kernel_size", "wrong-type"),
}


@pytest.mark.parametrize("name", EITHER)
def test_of_several_types_only_the_one_that_was_meant_is_reported(name: str) -> None:
    value, pointer, code = EITHER[name]
    job = changed(JOBS["stack"][0], {"model.layers.0.kernel_size": value})
    assert [(each.pointer, each.code) for each in findings(job, known=ARRAYS)] == [(pointer, code)]


def test_only_the_chosen_branch_is_reported() -> None:
    found = findings(changed(TABLE_JOB, {"optimizer": {"type": "sgd", "beta1": 0.9, "lr": -1}}))
    assert {each.pointer for each in found} == {"/optimizer/beta1", "/optimizer/lr"}


def test_a_key_that_is_named_like_its_kind() -> None:
    found = findings(changed(TABLE_JOB, {"optimizer": {"type": "adam", "adam": 1, "lr": "x"}}))
    assert {each.pointer for each in found} == {"/optimizer/adam", "/optimizer/lr"}


def test_input_is_never_echoed_at_length() -> None:
    long = "x" * 100_000
    for changes in (
        {"name": long},
        {long: 1},
        {"optimizer": {"type": long}},
        {"training.epochs": long},
        {"labels": {long: long}},
    ):
        for each in findings(changed(TABLE_JOB, changes)):
            assert len(each.message) < 2 * MAX_ECHO + 100
            assert len(each.hint or "") < 200
            assert len(each.pointer) <= 256


def test_control_characters_do_not_reach_the_terminal() -> None:
    drawn = str(refused('task: {type: "a\\e[31m"}\nmodel: 1\ndata: 2\ntraining: 3\n"k\\u202e": 1'))
    assert all(character.isprintable() or character == "\n" for character in drawn)


def test_a_document_with_ten_thousand_mistakes_gives_a_hundred() -> None:
    wide = {f"k{i}": i for i in range(10_000)}
    assert len(findings({**TABLE_JOB, **wide})) == 100
    assert len(findings(changed(JOBS["stack"][0], {"model.layers": [{"type": "x"}] * 1000}))) == 100


def test_wide_characters_keep_the_caret_in_place() -> None:
    drawn = str(refused("task: {type: classification, target: 队, zzzzzz: 3}\n" + FIVE.partition("\n")[2]))
    lines = drawn.split("\n")
    line = next(index for index, text in enumerate(lines) if "| task" in text)
    assert lines[line].index("zzzzzz") + 1 == lines[line + 1].index("^")  # 队 takes two columns and counts as one character


def test_a_long_line_is_shown_around_the_mistake() -> None:
    text = json.dumps({"labels": {f"k{i}": "v" for i in range(60)}, **changed(TABLE_JOB, {"training.epoch": 3})})
    drawn = str(refused(text, "json")).split("\n")
    line, caret = next(
        (text, drawn[index + 1]) for index, text in enumerate(drawn) if text.startswith(" 1 |") and "epoch" in text
    )
    assert line[caret.index("^") : caret.rindex("^") + 1] == '"epoch"'
    assert max(map(len, drawn)) < 200


def test_formats_for_machines() -> None:
    document = load_text(FIVE, name="dir/job, 1.yaml")
    found = refused(FIVE).findings
    plain = json.loads(report(found, document, "json"))
    assert [(each["line"], each["column"]) for each in plain] == [(2, 20), (5, 3), (7, 18), (9, 11), (10, 15)]
    github = report(found, document, "github").split("\n")
    assert github[1] == (
        "::error file=dir/job%2C 1.yaml,line=5,col=3,title=unknown-key::unknown key `optimizer.learning_rate` — did you mean `lr`?"
    )
    sarif = json.loads(report(found, document, "sarif"))
    assert sarif["version"] == "2.1.0"
    assert sarif["runs"][0]["results"][1]["locations"][0]["physicalLocation"]["region"] == {
        "startLine": 5,
        "startColumn": 3,
        "endColumn": 16,
    }
    assert report(found, document, "text") == render(found, document)


def test_color_only_on_request() -> None:
    document = load_text(FIVE)
    found = refused(FIVE).findings
    assert "\x1b" not in render(found, document)
    assert "\x1b[1;31merror" in render(found, document, color=True)


def test_chinese() -> None:
    found = findings(changed(TABLE_JOB, {"training.bs": 3}), "zh")
    assert [each.code for each in found] == ["unknown-key"]
    assert "batch_size" in (found[0].hint or "")
    assert any("\u4e00" <= character <= "\u9fff" for character in found[0].message + (found[0].hint or ""))


def test_findings_in_a_preset_and_in_an_override_point_into_them() -> None:
    document = load_text(
        "extends: preset:mlp-small\ntask: {type: causal_lm}\ndata: {source: {type: csv, dataset: d}}", name="job.yaml"
    )
    with pytest.raises(SpecError) as caught:
        resolve(compose(document, ["training.epochs=none"]), TABLE)
    drawn = str(caught.value)
    assert "preset:mlp-small:2:" in drawn
    assert "-o:1:17" in drawn
    assert "job.yaml:3:23" in drawn


def test_every_code_is_in_the_catalogue() -> None:
    assert set(PLAIN.values()) <= set(GRAMMAR)
    assert set(PLAIN) <= set(GRAMMAR)
