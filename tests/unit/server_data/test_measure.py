"""Facts of good files against counts made here, and a refusal with file and line for bad ones of every class.

The process that measures is real in one test per format; the others call what it calls.
"""

import contextlib
import io
import json
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from server.datasets.measure.__main__ import measure
from server.datasets.measure.reject import Rejected
from stoker.facts import ArrayFacts, ImageFacts, TableFacts, TextFacts

ROOT = Path(__file__).resolve().parents[3]


def files(tmp_path: Path, **contents: bytes) -> list[tuple[str, Path]]:
    """`a__b_csv` stands for the name a/b.csv."""
    out = []
    for key, data in contents.items():
        name = key.replace("__", "/")
        name = ".".join(name.rsplit("_", 1))
        path = tmp_path / key
        path.write_bytes(data)
        out.append((name, path))
    return sorted(out)


def rejected(tmp_path: Path, wanted: str | None = None, **contents: bytes) -> Rejected:
    with pytest.raises(Rejected) as refusal:
        measure(files(tmp_path, **contents), wanted, None)
    return refusal.value


def png(size: tuple[int, int] = (4, 3), mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, 1).save(out, "PNG")
    return out.getvalue()


def jpeg(size: tuple[int, int] = (16, 16)) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 50).save(out, "JPEG")
    return out.getvalue()


def npy(array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]", **options: bool) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def test_csv_facts_are_those_counted_by_hand(tmp_path: Path) -> None:
    rng = random.Random(3)
    rows = [(rng.randrange(5), rng.random(), rng.choice(["cat", "dog"]), rng.choice(["true", "FALSE", ""])) for _ in range(500)]
    text = "n,x,animal,flag\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
    facts = measure(files(tmp_path, t_csv=text.encode()), None, None)
    assert isinstance(facts, TableFacts)
    n, x, animal, flag = facts.columns
    assert (facts.rows, facts.format, facts.delimiter) == (500, "csv", ",")
    assert (n.kind, n.counts) == ("integer", {str(k): v for k, v in Counter(r[0] for r in rows).items()})
    assert (x.kind, x.distinct, x.counts is None) == ("number", len({r[1] for r in rows}), len({r[1] for r in rows}) > 1000)
    assert (animal.kind, animal.counts) == ("string", dict(Counter(r[2] for r in rows)))
    assert flag.kind == "boolean"
    assert flag.nulls == sum(r[3] == "" for r in rows)
    assert flag.counts == {"true": sum(r[3] == "true" for r in rows), "false": sum(r[3] == "FALSE" for r in rows)}


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", " 2", "-3"], "integer"),
        (["1", "2.5"], "number"),
        (["1", "9223372036854775808"], "number"),
        (["1e5", "nan"], "number"),
        (["true", "False"], "boolean"),
        (["1", "x"], "string"),
        (["2024-01-01", "2024-01-02"], "string"),
        (["", ""], "other"),
    ],
)
def test_the_kind_of_a_column_is_the_narrowest_that_fits(tmp_path: Path, cells: list[str], kind: str) -> None:
    body = "c,d\n" + "".join(f"{cell},1\n" for cell in cells)
    facts = measure(files(tmp_path, t_csv=body.encode()), None, None)
    assert isinstance(facts, TableFacts)
    assert facts.columns[0].kind == kind


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_what_the_header_has_most_of(tmp_path: Path, delimiter: str) -> None:
    body = delimiter.join("abc") + "\n" + delimiter.join("123") + "\n"
    facts = measure(files(tmp_path, t_csv=body.encode()), None, None)
    assert isinstance(facts, TableFacts)
    assert facts.delimiter == delimiter
    assert [c.name for c in facts.columns] == list("abc")


def test_a_quote_inside_a_cell_means_itself(tmp_path: Path) -> None:
    facts = measure(files(tmp_path, t_csv=b'pipe,n\n5" wide,1\n'), None, None)
    assert isinstance(facts, TableFacts)
    assert facts.columns[0].counts == {'5" wide': 1}


def test_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    body = b'\xef\xbb\xbfname,"a ""quoted"" one"\r\n"line one\nline two",1\r\nplain,2\r\n'
    facts = measure(files(tmp_path, t_csv=body), None, None)
    assert isinstance(facts, TableFacts)
    assert [c.name for c in facts.columns] == ["name", 'a "quoted" one']
    assert facts.rows == 2
    assert facts.columns[0].counts == {"line one\nline two": 1, "plain": 1}


def test_several_csv_files_are_one_table(tmp_path: Path) -> None:
    facts = measure(files(tmp_path, a_csv=b"x,y\n1,2\n", b_csv=b"x,y\n3,z\n"), None, None)
    assert isinstance(facts, TableFacts)
    assert facts.rows == 2
    assert [c.kind for c in facts.columns] == ["integer", "string"]


BAD_CSV = {
    "ragged": (b"a,b\n1,2\n1,2,3\n", 3),
    "short": (b"a,b\n1,2\n1\n", 3),
    "not utf-8": (b"a,b\n1,2\n1,\xff\n", 3),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), 1),
    "nul": (b"a,b\n1,\x002\n", 2),
    "two names": (b"a,a\n1,2\n", 1),
    "empty name": (b"a,\n1,2\n", 1),
    "control in name": (b"a,b\x01\n1,2\n", 1),
    "no rows": (b"a,b\n", 2),
    "empty": (b"", 1),
    "blank": (b"\n\n\n", 1),
    "too many columns": (b",".join(b"c%d" % i for i in range(4097)) + b"\n", 1),
    "a million columns": (b",".join(b"c%d" % i for i in range(1_000_000)) + b"\n", 1),
    "long cell": (b"a,b\n1,2\n1," + b"x" * ((1 << 20) + 1) + b"\n", 3),
    "no newline": (b"a,b\n" + b"x" * (40 << 20), None),
    "quote never closed": (b'a,b\n1,"' + b"x\n" * (20 << 20), None),
    "quote never closed, small": (b'a,b\n1,2\n3,"4\n5,6\n', 3),
}


@pytest.mark.parametrize("name", BAD_CSV)
def test_bad_csv_is_refused_with_file_and_line(tmp_path: Path, name: str) -> None:
    data, line = BAD_CSV[name]
    refusal = rejected(tmp_path, t_csv=data)
    assert (refusal.code, refusal.path) == ("dataset_rejected", "t.csv")
    if line is not None:
        assert refusal.line == line


def test_headers_must_agree(tmp_path: Path) -> None:
    refusal = rejected(tmp_path, a_csv=b"x,y\n1,2\n", b_csv=b"x,z\n1,2\n")
    assert (refusal.path, refusal.line) == ("b.csv", 1)


def test_parquet_facts(tmp_path: Path) -> None:
    table = pa.table(
        {
            "i": pa.array([1, 2, 2, None], pa.int32()),
            "f": [0.5, 1.5, float("nan"), 0.5],
            "s": pa.array(["a", "b", "a", "a"]).dictionary_encode(),
            "b": [True, False, True, True],
            "t": pa.array([0, 1, 2, 3], pa.timestamp("s")),
            "l": [[1], [2], [], [3]],
        }
    )
    facts = measure(files(tmp_path, t_bin=parquet(table)), None, None)  # by magic, not by name
    assert isinstance(facts, TableFacts)
    assert facts.format == "parquet"
    assert facts.rows == 4
    assert [c.kind for c in facts.columns] == ["integer", "number", "string", "boolean", "other", "other"]
    assert facts.columns[0].nulls == 1
    assert facts.columns[0].counts == {"1": 1, "2": 2}
    assert facts.columns[2].counts == {"a": 3, "b": 1}
    assert facts.columns[3].counts == {"true": 3, "false": 1}


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    whole = parquet(pa.table({"x": list(range(1000))}))
    footer = struct.unpack("<I", whole[-8:-4])[0]
    bad = {
        "footer cut": whole[:-10],
        "only magic": b"PAR1",
        "footer length lies": whole[:-8] + struct.pack("<I", 2**31) + b"PAR1",
        "footer garbage": whole[: -8 - footer] + bytes(footer) + whole[-8:],
        "pages cut out": whole[:4] + whole[1500:],
        "no rows": parquet(pa.table({"x": pa.array([], pa.int64())})),
        "long cell": parquet(pa.table({"x": ["y" * ((1 << 20) + 1)]})),
    }
    for name, data in bad.items():
        refusal = rejected(tmp_path, t_parquet=data)
        assert (refusal.code, refusal.path) == ("dataset_rejected", "t.parquet"), name


def test_every_flipped_byte_of_a_parquet_file_is_answered(tmp_path: Path) -> None:
    whole = parquet(pa.table({"x": list(range(50)), "s": ["ab"] * 50}))
    rng = random.Random(5)
    for at in rng.sample(range(4, len(whole)), 150):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << rng.randrange(8)
        with contextlib.suppress(Rejected):  # anything else would be a 500
            measure(files(tmp_path, t_parquet=bytes(damaged)), None, None)


def test_text_facts(tmp_path: Path) -> None:
    a, b = "héllo wörld 火\n", "second\n"
    facts = measure(files(tmp_path, a_txt=a.encode(), b_txt=b.encode()), None, None)
    assert facts == TextFacts(bytes=len((a + b).encode()), characters=len(a + b), distinct_characters=len(set(a + b)))


def test_characters_split_between_blocks_are_counted_once(tmp_path: Path) -> None:
    text = "x" + "é" * (1 << 20)
    facts = measure(files(tmp_path, a_txt=text.encode()), None, None)
    assert isinstance(facts, TextFacts)
    assert facts.characters == len(text)


@pytest.mark.parametrize(("data", "line"), [(b"ok\n\xff\xfe\n", 2), (b"ok\nok\n\x00", 3), (b"", 1), (b"cut \xe7\x81", 1)])
def test_bad_text_is_refused(tmp_path: Path, data: bytes, line: int) -> None:
    refusal = rejected(tmp_path, t_txt=data)
    assert (refusal.code, refusal.line) == ("dataset_rejected", line)


def test_csv_may_be_meant_as_text(tmp_path: Path) -> None:
    assert isinstance(measure(files(tmp_path, t_csv=b"a,b\n1,2\n"), "text", None), TextFacts)


def test_image_facts(tmp_path: Path) -> None:
    contents = {"cat__1_png": png(), "cat__2_png": png(mode="L"), "dog__1_jpg": png(mode="P")}
    facts = measure(files(tmp_path, **contents), None, None)
    assert facts == ImageFacts(counts={"cat": 2, "dog": 1}, height=3, width=4)
    mixed = measure(files(tmp_path, cat__1_png=png(), dog__1_jpg=jpeg()), None, None)
    assert isinstance(mixed, ImageFacts)
    assert (mixed.height, mixed.width) == (None, None)


def _bomb() -> bytes:
    """A PNG that claims 100,000 × 100,000 pixels."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_bad_pictures_are_refused(tmp_path: Path) -> None:
    bad = {
        "png cut": png((64, 64))[:-30],
        "jpeg cut": jpeg((64, 64))[:400],
        "only magic": b"\x89PNG\r\n\x1a\n",
        "bomb": _bomb(),
        "crc wrong": png().replace(b"IHDR", b"IHDX"),
    }
    for name, data in bad.items():
        refusal = rejected(tmp_path, c__x_png=data)
        assert (refusal.code, refusal.path) == ("dataset_rejected", "c/x.png"), name


def test_a_picture_without_a_folder_and_a_table_in_one_are_refused(tmp_path: Path) -> None:
    assert rejected(tmp_path, x_png=png()).code == "dataset_rejected"
    assert rejected(tmp_path, a__t_csv=b"a\n1\n").code == "dataset_rejected"


def test_array_facts(tmp_path: Path) -> None:
    x = np.zeros((6, 2), np.float32)
    y = np.array([0, 1, 1, 2, 1, 0])
    facts = measure(files(tmp_path, x_npy=npy(x), y_npy=npy(y)), None, None)
    assert isinstance(facts, ArrayFacts)
    assert (facts.files["x.npy"].dtype, facts.files["x.npy"].shape) == ("<f4", (6, 2))
    assert facts.files["x.npy"].counts is None
    assert facts.files["y.npy"].counts == {"0": 2, "1": 3, "2": 1}
    assert facts.files["y.npy"].distinct == 3


def test_bad_arrays_are_refused(tmp_path: Path) -> None:
    objects = npy(np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    assert rejected(tmp_path, x_npy=objects).code == "format_not_allowed"
    whole = npy(np.zeros((100, 3)))
    evil = whole.replace(b"(100, 3)", b"(10**9,)")
    bad = {
        "cut": whole[:-1],
        "longer": whole + b"x",
        "only magic": b"\x93NUMPY",
        "version 9": b"\x93NUMPY\x09\x00" + whole[8:],
        "expression": evil,
        "negative": whole.replace(b"(100, 3)", b"(-10, 3)"),
        "strings": npy(np.array(["a", "b"])),
        "structured": npy(np.zeros(3, [("a", "i4"), ("b", "f4")])),
        "complex": npy(np.zeros(3, complex)),
        "empty": npy(np.zeros((0, 3))),
        "scalar": npy(np.array(1.0)),
        "header lies": whole.replace(b"(100, 3)", b"(999, 9)"),
        "huge header": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31),
    }
    for name, data in bad.items():
        refusal = rejected(tmp_path, x_npy=data)
        assert (refusal.code, refusal.path) == ("dataset_rejected", "x.npy"), name


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("data.pkl", b"x")
    return out.getvalue()


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("it ran",))


@pytest.mark.parametrize(
    "data",
    [
        *(pickle.dumps({"w": [1.0]}, protocol) for protocol in (2, 3, 4, 5)),
        *(pickle.dumps(_Runs(), protocol) for protocol in (0, 1)),
        _zip(),
        b"\x89HDF\r\n\x1a\n" + bytes(100),
        b"\x1f\x8b\x08\x00" + bytes(20),
        b"BZh91AY&SY\x01\x02",
        b"\xfd7zXZ\x00",
        b"\x28\xb5\x2f\xfd\x00",
        b"\x78\x9c\x03\x00",
        b"\x7fELF\x02\x01",
        b"SQLite format 3\x00",
        b"ARROW1\x00\x00",
    ],
    ids=lambda d: repr(d[:8]),
)
@pytest.mark.parametrize("name", ["t_csv", "t_txt", "x_npy"])
def test_formats_that_could_run_code_or_are_not_read_are_refused_by_magic(
    tmp_path: Path, data: bytes, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rejected(tmp_path, **{name: data}).code == "format_not_allowed"
    assert "it ran" not in capsys.readouterr().out


@pytest.mark.parametrize("data", [b"ORCHID,price\n1,2\n", b"GGUF,b\n1,2\n", b"MZ,b\n1,2\n", b"cash,rate\nI1,.5\n"])
def test_tables_whose_first_letters_are_some_formats_magic_are_read(tmp_path: Path, data: bytes) -> None:
    assert isinstance(measure(files(tmp_path, t_csv=data), None, None), TableFacts)


def test_formats_do_not_mix(tmp_path: Path) -> None:
    refusal = rejected(tmp_path, a_csv=b"a\n1\n", b_npy=npy(np.zeros(3)))
    assert (refusal.code, refusal.path) == ("dataset_rejected", "b.npy")


@pytest.mark.parametrize("wanted", ["parquet", "arrays", "image_folder"])
def test_a_file_is_not_what_it_is_called(tmp_path: Path, wanted: str) -> None:
    assert rejected(tmp_path, wanted, t_csv=b"a\n1\n").code == "dataset_rejected"


def run_process(request: dict[str, object]) -> tuple[int, dict[str, dict[str, object]]]:
    done = subprocess.run(
        [sys.executable, "-m", "server.datasets.measure"],
        input=json.dumps(request).encode(),
        capture_output=True,
        cwd=ROOT,
        timeout=60,
    )
    return done.returncode, json.loads(done.stdout or b"{}")


def test_the_process_measures_within_its_limits(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"a,b\n1,2\n")
    request = {"files": [{"path": "t.csv", "location": str(tmp_path / "t")}], "memory_bytes": 4 << 30, "seconds": 30}
    code, answer = run_process(request)
    assert code == 0
    assert answer["content"]["rows"] == 1


def test_the_process_dies_of_its_limit_and_not_the_machine(tmp_path: Path) -> None:
    """3 GB of zeros in one run-length coded column, under 1 GB of address space."""
    column = pa.DictionaryArray.from_arrays(np.zeros(3000, np.int32), ["y" * 1_000_000])
    pq.write_table(pa.table({"x": column}), tmp_path / "t")
    assert (tmp_path / "t").stat().st_size < 10 << 20
    request = {"files": [{"path": "t.parquet", "location": str(tmp_path / "t")}], "memory_bytes": 1 << 30, "seconds": 20}
    _, answer = run_process(request)
    assert answer == {} or "rejected" in answer


def test_the_process_dies_of_its_time(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"a,b\n" + b"1.5,some text\n" * 20_000_000)
    request = {"files": [{"path": "t.csv", "location": str(tmp_path / "t")}], "memory_bytes": 4 << 30, "seconds": 1}
    code, answer = run_process(request)
    assert code != 0
    assert answer == {}
