"""Texts become documents: YAML 1.2 as it is meant, the same value from every format, and refusals that point."""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.document.document import Document
from stoker.document.load import MAX_BYTES, Format, load_file, load_text
from stoker.errors import ConfigError, SpecError


def value_of(text: str) -> object:
    return load_text(f"v: {text}").value["v"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NO", "NO"),
        ("no", "no"),
        ("on", "on"),
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("3:20", "3:20"),
        ("2020-01-01", "2020-01-01"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", "1_000"),
        (".5", 0.5),
        ("5.", 5.0),
        ("+1", 1),
        ("-0.0", 0.0),
        ("~", None),
        ("", None),
        ("Null", None),
        ("TRUE", True),
        ('"1"', "1"),
        ("'true'", "true"),
        ("=", "="),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("[1, a, [2.5]]", [1, "a", [2.5]]),
    ],
)
def test_yaml_is_yaml_1_2(text: str, expected: object) -> None:
    value = value_of(text)
    assert value == expected
    assert type(value) is type(expected)


REFUSED: dict[str, tuple[Format, str | bytes, str, int, int]] = {
    "yaml anchor": ("yaml", "a: &x 1", "yaml-alias", 1, 4),
    "yaml alias": ("yaml", "a: 1\nb: *x", "yaml-alias", 2, 4),
    "yaml bomb": ("yaml", "a: &a [x,x]\nb: &b [*a,*a]", "yaml-alias", 1, 4),
    "yaml tag": ("yaml", "a: !!python/object:os.system 1", "yaml-tag", 1, 4),
    "yaml local tag": ("yaml", "a: !x 1", "yaml-tag", 1, 4),
    "yaml duplicate": ("yaml", "a: 1\n'a': 2", "duplicate-key", 2, 1),
    "yaml documents": ("yaml", "a: 1\n---\nb: 2", "yaml-documents", 2, 1),
    "yaml merge": ("yaml", "<<: {a: 1}", "yaml-merge-key", 1, 1),
    "yaml key": ("yaml", "? [a]\n: 1", "yaml-key", 1, 3),
    "yaml nan": ("yaml", "a: .NaN", "non-finite", 1, 4),
    "yaml infinity": ("yaml", "a: -.inf", "non-finite", 1, 4),
    "yaml 1e999": ("yaml", "a: 1e999", "number-out-of-range", 1, 4),
    "yaml 2^63": ("yaml", f"a: {2**63}", "number-out-of-range", 1, 4),
    "yaml deep": ("yaml", "a: " + "[" * 40, "too-deep", 1, 35),
    "yaml nul": ("yaml", 'a: "\\0"', "nul", 1, 1),
    "yaml open list": ("yaml", "a: [1", "yaml-invalid", 1, 6),
    "yaml tab": ("yaml", "a:\n\tb: 1", "yaml-invalid", 2, 1),
    "yaml control": ("yaml", "a: \x01", "yaml-invalid", 1, 1),
    "yaml too large": ("yaml", "a: " + "x" * MAX_BYTES["yaml"], "too-large", 1, 1),
    "json too large": ("json", '"' + "x" * MAX_BYTES["json"] + '"', "too-large", 1, 1),
    "bom": ("yaml", "\ufeffa: 1", "bom", 1, 1),
    "not utf-8": ("yaml", b"a: 1\nb: \xff", "not-utf8", 2, 1),
    "half a pair": ("yaml", 'a: "\\ud800"', "invalid-unicode", 1, 1),
    "json comment": ("json", '{"a": 1} // x', "json-invalid", 1, 10),
    "json duplicate": ("json", '{"a": 1, "a": 2}', "json-duplicate-key", 1, 1),
    "json nan": ("json", '{"a": NaN}', "json-non-finite", 1, 1),
    "toml": ("toml", "a = 1\nb = = 2", "toml-invalid", 2, 5),
    "toml duplicate": ("toml", "a = 1\na = 2", "toml-invalid", 2, 1),
    "toml date": ("toml", "a = 2020-01-01", "toml-date", 1, 1),
    "toml nan": ("toml", "a = nan", "non-finite", 1, 1),
    "toml 2^63": ("toml", f"a = {2**63}", "number-out-of-range", 1, 1),
    "toml deep": ("toml", "a = " + "[" * 40 + "]" * 40, "too-deep", 1, 1),
    "toml very deep": ("toml", "a = " + "[" * 20_000, "too-deep", 1, 1),
    "toml many digits": ("toml", "a = " + "9" * 5000, "number-out-of-range", 1, 1),
    "yaml many values": ("yaml", "[" + "1," * 5000 + "1]", "too-many-values", 1, 10000),
    "toml many values": ("toml", "a = [" + "1," * 5000 + "1]", "too-many-values", 1, 1),
    "toml long key": ("toml", "a." * 30_000 + "b = 1", "too-deep", 1, 1),
    "toml long quoted key": ("toml", '"a".' * 10_000 + "b = 1", "too-deep", 1, 1),
    "a list": ("yaml", "- 1", "not-a-mapping", 1, 1),
    "nothing": ("yaml", "", "not-a-mapping", 1, 1),
    "text": ("yaml", "hello", "not-a-mapping", 1, 1),
}


@pytest.mark.parametrize(("form", "text", "code", "line", "column"), REFUSED.values(), ids=REFUSED)
def test_refused_with_a_position(form: Format, text: str | bytes, code: str, line: int, column: int) -> None:
    with pytest.raises(SpecError) as caught:
        load_text(text, form, name="x")
    assert [each.code for each in caught.value.findings] == [code]
    if text:
        assert f"x:{line}:{column}" in str(caught.value)
    assert len(str(caught.value)) < 1000


YAML = """# comment
name: x   # trailing
optimizer:
  type: sgd
  lr: 1e-3
labels: {a: b, "c d": 'e'}
model:
  layers:
    - type: conv
      kernel_size: [3, 5]
    - {type: pool}
"""
JSON = """{"name": "x",
 "optimizer": {"type": "sgd", "lr": 1e-3},
 "labels": {"a": "b", "c d": "e"},
 "model": {"layers": [
   {"type": "conv", "kernel_size": [3, 5]},
   {"type": "pool"}]}}
"""
TOML = """name = "x"  # comment
labels = {a = "b", "c d" = 'e'}
optimizer.type = "sgd"
optimizer.lr = 1e-3
[[model.layers]]
type = "conv"
kernel_size = [
  3,  # first
  5,
]
[[model.layers]]
type = "pool"
"""
TEXTS: dict[Format, str] = {"yaml": YAML, "json": JSON, "toml": TOML}


def excerpt(document: Document, pointer: str) -> tuple[str | None, str]:
    """What stands at a pointer: key and start of the value as written."""
    found = document.find(pointer)
    assert found is not None
    source, place = found
    lines = source.text.split("\n")
    spans = [place.key, place.value]
    written = [lines[s.line - 1][s.column - 1 : s.column - 1 + s.length] if s else None for s in spans]
    assert written[1] is not None
    return written[0], written[1]


@pytest.mark.parametrize("form", TEXTS)
def test_every_value_knows_its_place(form: Format) -> None:
    document = load_text(TEXTS[form], form)
    assert document.value == load_text(JSON, "json").value
    assert {"yaml": "lr", "json": '"lr"', "toml": "lr"}[form] == excerpt(document, "/optimizer/lr")[0]
    assert excerpt(document, "/optimizer/lr")[1] == "1e-3"
    assert excerpt(document, "/model/layers/0/kernel_size/1")[1] == "5"
    assert excerpt(document, "/model/layers/1/type")[1].strip("\"'") == "pool"
    key, value = excerpt(document, "/labels/c d")
    assert (str(key).strip("\"'"), value.strip("\"'")) == ("c d", "e")
    assert excerpt(document, "/model/layers/1/nothing/here")[1] in ("{", "layers", "type: pool}", "{type: pool}")


keys = st.text(min_size=1, max_size=4).filter(lambda text: "\0" not in text and text.isprintable())
values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | keys,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=10,
)


def pointers(value: object, at: str = "") -> list[str]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = [pointers(each, f"{at}/{str(key).replace('~', '~0').replace('/', '~1')}") for key, each in pairs]
    return [at, *(pointer for group in inner for pointer in group)]


@given(st.dictionaries(keys, values, max_size=4), st.sampled_from([None, 2]))
def test_json_places_cover_every_value(value: dict[str, object], indent: int | None) -> None:
    document = load_text(json.dumps(value, indent=indent), "json")
    assert document.value == value
    assert sorted(document.sources[0].places) == sorted(pointers(value))


def as_toml(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{json.dumps(key)} = {as_toml(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(as_toml, value)) + "]"
        case _:
            return json.dumps(value)


@given(st.dictionaries(keys, values, max_size=4))
def test_toml_places_cover_every_value(value: dict[str, object]) -> None:
    text = "\n".join(f"{json.dumps(key)} = {as_toml(inner)}" for key, inner in value.items())
    try:
        expected = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    document = load_text(text, "toml")
    assert document.value == expected
    assert sorted(document.sources[0].places) == sorted(pointers(value))


@given(st.text(alphabet="ab:-[]{},&*!|>'\"%@` \n\t#?=0.e~\\", max_size=40), st.sampled_from(sorted(TEXTS)))
def test_any_text_is_a_document_or_a_spec_error(text: str, form: Format) -> None:
    try:
        document = load_text(text, form)
    except SpecError as error:
        if not error.findings:
            raise
        return
    assert sorted(document.sources[0].places) == sorted(pointers(document.value))


def test_files_by_suffix(tmp_path: Path) -> None:
    for suffix, form in ((".yaml", "yaml"), (".yml", "yaml"), (".json", "json"), (".toml", "toml")):
        path = tmp_path / f"job{suffix}"
        path.write_text(TEXTS[form])
        assert load_file(path).value == load_text(JSON, "json").value
        assert load_file(path).sources[0].name == str(path)


@pytest.mark.parametrize("name", ["job.txt", "missing.yaml", "folder.json"])
def test_files_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ConfigError):
        load_file(tmp_path / name)


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"a: " + b"x" * (2 * MAX_BYTES["yaml"]))
    with pytest.raises(SpecError, match="larger"):
        load_file(path)
