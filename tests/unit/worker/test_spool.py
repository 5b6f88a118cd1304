"""The spool keeps every whole frame over crashes, and gives back exactly what was put in."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.frames import Frame, decode
from worker.agent.spool import Spool

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
payloads = st.lists(st.binary(max_size=300), min_size=1, max_size=30)


def fresh(tmp_path_factory: pytest.TempPathFactory, name: str = "spool") -> Path:
    return tmp_path_factory.mktemp(name) / "spool"


def everything(spool: Spool) -> list[Frame]:
    body, _ = spool.batch(0, 1 << 30)
    return list(decode(body))


def write(home: Path, data: list[bytes], segment_bytes: int) -> None:
    spool = Spool(home, segment_bytes)
    for item in data:
        spool.append("logs", {"rank": 0}, item)
    spool.sync()
    spool.close()


@QUICK
@given(data=payloads, segment_bytes=st.integers(1, 2000))
def test_what_is_written_is_recovered(tmp_path_factory: pytest.TempPathFactory, data: list[bytes], segment_bytes: int) -> None:
    home = fresh(tmp_path_factory)
    write(home, data, segment_bytes)
    again = Spool(home, segment_bytes)
    assert [(f.seq, f.payload) for f in everything(again)] == list(enumerate(data, 1))
    assert again.append("logs", {}, b"more") == len(data) + 1
    again.close()


@QUICK
@given(data=payloads, cut=st.integers(0, 10_000), segment_bytes=st.sampled_from([1, 400, 1 << 20]))
def test_a_torn_tail_costs_the_torn_frame_only(
    tmp_path_factory: pytest.TempPathFactory, data: list[bytes], cut: int, segment_bytes: int
) -> None:
    home = fresh(tmp_path_factory)
    write(home, data, segment_bytes)
    last = sorted(home.glob("*.frames"))[-1]
    size = last.stat().st_size
    before = sum(p.stat().st_size for p in home.glob("*.frames")) - size
    with last.open("r+b") as file:
        file.truncate(kept := cut % (size + 1))
    lengths = [len(Frame(seq, "logs", {"rank": 0}, item).encode()) for seq, item in enumerate(data, 1)]
    whole = 0
    while whole < len(data) and sum(lengths[: whole + 1]) <= before + kept:
        whole += 1
    again = Spool(home)
    assert [f.payload for f in everything(again)] == data[:whole]
    assert again.append("logs", {}, b"more") == whole + 1
    assert [f.seq for f in everything(again)] == list(range(1, whole + 2))
    again.close()


@QUICK
@given(data=payloads, at=st.integers(0, 10**6), flip=st.integers(1, 255), segment_bytes=st.sampled_from([1, 400, 1 << 20]))
def test_a_damaged_byte_never_passes_for_data(
    tmp_path_factory: pytest.TempPathFactory, data: list[bytes], at: int, flip: int, segment_bytes: int
) -> None:
    home = fresh(tmp_path_factory)
    write(home, data, segment_bytes)
    segments = sorted(home.glob("*.frames"))
    victim = segments[at % len(segments)]
    raw = bytearray(victim.read_bytes())
    raw[at % len(raw)] ^= flip
    victim.write_bytes(bytes(raw))
    again = Spool(home)
    kept = everything(again)
    assert [f.payload for f in kept] == data[: len(kept)]
    assert len(kept) < len(data)
    again.close()


def test_acknowledged_segments_are_deleted(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", segment_bytes=100)
    for _ in range(10):
        spool.append("logs", {}, b"x" * 100)
    assert len(list((tmp_path / "spool").iterdir())) == 10
    spool.forget(7)
    assert [f.seq for f in everything(spool)] == [8, 9, 10]
    assert len(list((tmp_path / "spool").iterdir())) == 3
    spool.forget(10)
    assert spool.pending_bytes == 0
    assert spool.append("logs", {}, b"") == 11
    spool.close()


def test_a_batch_holds_about_its_limit_and_one_frame_at_least(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    for _ in range(10):
        spool.append("logs", {}, b"x" * 1000)
    assert spool.batch(0, 1)[1] == 1
    body, last = spool.batch(3, 3500)
    assert [f.seq for f in decode(body)] == [4, 5, 6]
    assert last == 6
    assert spool.batch(10, 1000) == (b"", 10)
    spool.close()
