"""`extends` and overrides: what lies over what, and where each value says it came from."""

from pathlib import Path

import pytest

from stoker.document.load import compose, load_file, load_text
from stoker.document.presets import preset, presets
from stoker.document.resolve import resolve
from stoker.errors import SpecError
from tests.support.spec_cases import TABLE, TABLE_JOB, TEXT, Json

BASE = """
task: {type: classification, target: t}
model: {type: mlp, hidden_sizes: [64, 32], dropout: 0.1}
data: {source: {type: csv, dataset: d}, split: {strategy: random, validation: 0.2}}
optimizer: {type: adamw, lr: 1e-2, beta2: 0.95}
training: {epochs: 3, batch_size: 16}
evaluation: {interval: {epochs: 2}}
"""


def over(text: str, *overrides: str, base: str = BASE) -> Json:
    made = compose(
        load_text(f"extends: job:1\n{text}"), overrides, fetch=lambda job: load_text(base).value if job == "1" else None
    )
    return made.value


def test_mappings_merge_and_lists_replace() -> None:
    value = over("model: {type: mlp, hidden_sizes: [8]}")
    assert value["model"] == {"type": "mlp", "hidden_sizes": [8], "dropout": 0.1}
    assert "extends" not in value


def test_another_kind_takes_nothing_from_the_old_one() -> None:
    assert over("optimizer: {type: sgd}")["optimizer"] == {"type": "sgd"}
    assert over("optimizer: {type: adamw, lr: 1}")["optimizer"] == {"type": "adamw", "lr": 1, "beta2": 0.95}
    assert over("optimizer: {lr: 1}")["optimizer"] == {"type": "adamw", "lr": 1, "beta2": 0.95}


def test_a_strategy_that_chooses_no_kind_replaces_nothing_else() -> None:
    assert over("data: {split: {strategy: stratified}}")["data"]["split"] == {"strategy": "stratified", "validation": 0.2}


def test_lengths_take_each_others_place() -> None:
    assert over("training: {max_steps: 7}")["training"] == {"max_steps": 7, "batch_size": 16}
    assert over("evaluation: {interval: {steps: 7}}")["evaluation"] == {"interval": {"steps": 7}}


@pytest.mark.parametrize(
    ("overrides", "path", "expected"),
    [
        (["optimizer.lr=1e-3"], "optimizer", {"type": "adamw", "lr": 0.001, "beta2": 0.95}),
        (["optimizer.type=sgd"], "optimizer", {"type": "sgd"}),
        (["optimizer.lr=1", "optimizer.type=sgd"], "optimizer", {"type": "sgd", "lr": 1}),
        (["optimizer={type: sgd, momentum: 0.9}"], "optimizer", {"type": "sgd", "momentum": 0.9}),
        (["model.hidden_sizes.1=5"], "model", {"type": "mlp", "hidden_sizes": [64, 5], "dropout": 0.1}),
        (["model.hidden_sizes=[1]"], "model", {"type": "mlp", "hidden_sizes": [1], "dropout": 0.1}),
        (["training.max_steps=9"], "training", {"max_steps": 9, "batch_size": 16}),
        (["evaluation.interval.steps=9"], "evaluation", {"interval": {"steps": 9}}),
        (["schedule.warmup_steps=3"], "schedule", {"type": "constant", "warmup_steps": 3}),
        (["checkpoint.interval.steps=3"], "checkpoint", {"interval": {"steps": 3}}),
        (['labels."a.b"=NO'], "labels", {"a.b": "NO"}),
        (["labels.a="], "labels", {"a": None}),
        (["labels.a=x=y"], "labels", {"a": "x=y"}),
        (["model.dropout=null"], "model", {"type": "mlp", "hidden_sizes": [64, 32], "dropout": None}),
    ],
)
def test_overrides(overrides: list[str], path: str, expected: Json) -> None:
    assert compose(load_text(BASE), overrides).value[path] == expected


@pytest.mark.parametrize(
    ("override", "code", "column"),
    [
        ("lr", "override-syntax", 1),
        ("=1", "override-syntax", 1),
        (".a=1", "override-syntax", 1),
        ("", "override-syntax", 1),
        ("optimizer.lr=[", "yaml-invalid", 15),
        ("optimizer.lr=&a 1", "yaml-alias", 14),
        ("training.epochs.x=1", "override-path", 1),
        ("model.hidden_sizes.2=1", "override-index", 1),
        ("model.hidden_sizes.x=1", "override-index", 1),
        ("model.hidden_sizes.-1=1", "override-index", 1),
    ],
)
def test_overrides_that_cannot_be_applied(override: str, code: str, column: int) -> None:
    with pytest.raises(SpecError) as caught:
        compose(load_text(BASE), [override])
    assert [each.code for each in caught.value.findings] == [code]
    assert f"-o:1:{column}" in str(caught.value)


def test_overrides_are_checked_like_the_document() -> None:
    with pytest.raises(SpecError) as caught:
        resolve(compose(load_text(BASE), ["optimizer.lr='1'", "optimizer.learning_rate=3"]), TABLE)
    assert {(each.pointer, each.code) for each in caught.value.findings} == {
        ("/optimizer/lr", "wrong-type"),
        ("/optimizer/learning_rate", "unknown-key"),
    }
    assert "optimizer.lr='1'\n   |              ^^^ remove the quotes" in str(caught.value)


def test_files_extend_files(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "middle.toml").write_text('extends = "./base.yaml"\n[training]\nmax_steps = 4')
    (tmp_path / "job.json").write_text('{"extends": "./middle.toml", "name": "x"}')
    made = compose(load_file(tmp_path / "job.json"))
    assert made.value["training"] == {"max_steps": 4, "batch_size": 16}
    assert made.origins["/training/max_steps"] == "file:middle.toml"
    assert made.origins["/optimizer/lr"] == "file:base.yaml"
    assert "/name" not in made.origins


def test_a_loop_of_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: ./b.yaml")
    (tmp_path / "b.yaml").write_text("extends: ./a.yaml")
    with pytest.raises(SpecError) as caught:
        compose(load_file(tmp_path / "a.yaml"))
    assert [each.code for each in caught.value.findings] == ["extends-loop"]


@pytest.mark.parametrize(
    "target", ["preset:nope", "'preset:'", "job:2", "./x.yaml", "/etc/passwd", "../../x", "3", "[a]", '"a\\0b"', "''"]
)
def test_what_cannot_be_extended(target: str) -> None:
    document = load_text(f"extends: {target}".replace("\\0", "b"))
    with pytest.raises(SpecError) as caught:
        compose(document, fetch=lambda _: None)
    assert [(each.code, each.pointer) for each in caught.value.findings] == [("extends-unknown", "/extends")]


def test_a_document_that_did_not_come_from_a_file_reads_no_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    with pytest.raises(SpecError, match="files can only be extended by a file"):
        resolve({"extends": str(tmp_path / "base.yaml")})


def test_resolve_composes_presets_by_itself() -> None:
    job = {**TABLE_JOB, "extends": "preset:mlp-small"}
    resolved = resolve(job, TABLE)
    assert resolved.spec.training.batch_size == 64
    assert resolved.origins["/training/batch_size"] == "preset:mlp-small"


@pytest.mark.parametrize("name", presets())
def test_presets_resolve_with_nothing_but_data(name: str) -> None:
    document = preset(name)
    assert document is not None
    assert presets()[name].endswith(".")
    text = document.value.get("task", {}).get("type") == "causal_lm"
    more: Json = {"data": {"source": {"type": "text", "dataset": "d"}}} if text else TABLE_JOB
    resolved = resolve({"extends": f"preset:{name}", **more}, None if name == "gpt2-124m" else TEXT if text else TABLE)
    assert f"preset:{name}" in resolved.origins.values()
    assert resolved.warnings == ()
