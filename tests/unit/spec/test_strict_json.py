"""Each class of JSON that some reader would not survive, by its published code, against the standard library as reference."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.document.strict_json import JsonRejected, strict_json

REFUSED = {
    "empty": (b"", "json_invalid"),
    "spaces": (b" \n ", "json_invalid"),
    "trailing comma": (b'{"a":1,}', "json_invalid"),
    "comment": (b'{"a":1} // x', "json_invalid"),
    "single quotes": (b"{'a':1}", "json_invalid"),
    "two documents": (b"{}{}", "json_invalid"),
    "unclosed string": (b'{"a":"b', "json_invalid"),
    "ends in a backslash": (b'{"a":"b\\', "json_invalid"),
    "newline in a string": (b'"a\nb"', "json_invalid"),
    "NaN": (b'{"a":NaN}', "json_non_finite"),
    "Infinity": (b"[-Infinity]", "json_non_finite"),
    "1e400": (b"1e400", "json_number_out_of_range"),
    "-1e400": (b"[-1E+400]", "json_number_out_of_range"),
    "309 digits and a point": (b"1" * 400 + b".0", "json_number_out_of_range"),
    "10^30": (b"1" + b"0" * 30, "json_number_out_of_range"),
    "2^63": (str(2**63).encode(), "json_number_out_of_range"),
    "5000 digits": (b"9" * 5000, "json_number_out_of_range"),
    "depth 33": (b"[" * 33 + b"]" * 33, "json_too_deep"),
    "depth 1000": (b'{"a":' * 1000 + b"1" + b"}" * 1000, "json_too_deep"),
    "depth 100000": (b"[" * 100_000, "json_too_deep"),
    "NUL escaped": (b'{"a":"\\u0000"}', "json_nul"),
    "NUL in a key": (b'{"\\u0000":1}', "json_nul"),
    "lone surrogate": (b'["\\ud800"]', "json_invalid_unicode"),
    "surrogates in the wrong order": (b'["\\udc00\\ud800"]', "json_invalid_unicode"),
    "invalid UTF-8": (b'["\xff"]', "json_not_utf8"),
    "surrogate as UTF-8": (b'["\xed\xa0\x80"]', "json_not_utf8"),
    "BOM": (b"\xef\xbb\xbf{}", "json_bom"),
    "UTF-16": ('{"a":1}'.encode("utf-16"), "json_bom"),
    "duplicate key": (b'{"a":1,"a":2}', "json_duplicate_key"),
    "duplicate key spelled differently": (b'{"a":1,"\\u0061":2}', "json_duplicate_key"),
    "too many values": (b"[" + b"1," * 100_000 + b"1]", "json_too_many_values"),
    "too many empty objects": (b"[" + b"{}," * 60_000 + b"{}]", "json_too_many_values"),
}


@pytest.mark.parametrize(("data", "code"), REFUSED.values(), ids=REFUSED)
def test_refused(data: bytes, code: str) -> None:
    with pytest.raises(JsonRejected) as caught:
        strict_json(data)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 32 + b"]" * 32,
        b'["\\\\u0000", "\\ud83d\\ude00", "[[[[", "NaN", "1e400"]',
        str(2**63 - 1).encode(),
        str(-(2**63)).encode(),
        b'{"a":[1.5,-2,1e-320,true,null,"\xc3\xa9"]}',
        b'"' + b'\\"[' * 50_000 + b'"',
    ],
)
def test_accepted_as_the_standard_library_reads_it(data: bytes) -> None:
    assert strict_json(data) == json.loads(data)


def test_a_refusal_never_quotes_the_input() -> None:
    with pytest.raises(JsonRejected) as caught:
        strict_json(b'{"secret-key":1,"secret-key":1}')
    assert "secret" not in str(caught.value)


def test_minus_zero_is_zero() -> None:
    assert str(strict_json(b"[-0.0]")) == "[0.0]"


def test_syntax_errors_carry_line_and_column() -> None:
    with pytest.raises(JsonRejected) as caught:
        strict_json(b'{\n  "a": x}')
    assert (caught.value.line, caught.value.column) == (2, 8)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values, st.booleans())
def test_round_trip(value: object, ascii_only: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode()
    if "\\u0000" in json.dumps(value):
        return
    assert strict_json(data) == value


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\u0d8NaInfity-1e. ', max_size=80).map(str.encode))
def test_any_bytes_give_a_value_or_a_refusal(data: bytes) -> None:
    try:
        value = strict_json(data)
    except JsonRejected:
        return
    assert value == json.loads(data)
