"""Server-sent events: any portions, any repetition, nothing twice and nothing half."""

import json

from hypothesis import given
from hypothesis import strategies as st

from stoker.client._stream import Cursor, Decoder, Message
from tests.support.scripted import event

WORDS = "ü\u2028"


def text_of(seqs: list[int]) -> bytes:
    parts = [b"retry: 1000\n\n", b": alive\n\n"]
    for n in seqs:
        data = json.dumps(event(n, words=WORDS), ensure_ascii=False)
        parts.append(f"id: {n}\nevent: metrics\ndata: {data}\n\n".encode())
    return b"".join(parts)


@given(st.lists(st.integers(1, 50), max_size=12), st.lists(st.integers(1, 40), max_size=80), st.booleans())
def test_any_portions_give_each_event_once_in_order(seqs: list[int], cuts: list[int], crlf: bool) -> None:
    data = text_of(seqs).replace(b"\n", b"\r\n") if crlf else text_of(seqs)
    decoder, cursor, got, at = Decoder(), Cursor(), [], 0
    for size in [*cuts, len(data)]:
        for message in decoder.feed(data[at : at + size]):
            if (found := cursor.accept(message)) is not None:
                got.append(found.seq)
        at += size
    # The independent reference: running maxima, each once.
    assert got == sorted({max(seqs[: i + 1]) for i in range(len(seqs))})


def test_an_event_that_was_cut_off_is_never_given_out() -> None:
    whole = text_of([1])
    decoder = Decoder()
    assert [m.id for m in decoder.feed(whole[:-1])] == []
    assert [m.id for m in Decoder().feed(whole)] == ["1"]


def test_lines_of_data_are_joined_and_unknown_fields_ignored() -> None:
    messages = list(Decoder().feed(b"event: note\nfoo: bar\ndata: a\ndata:b\nid: 7\n\ndata: c\n\n"))
    assert messages == [Message("note", "a\nb", "7"), Message("message", "c", None)]


def test_what_cannot_be_read_is_skipped() -> None:
    cursor = Cursor()
    for data in ("", "{}", "null", '{"seq": "x"}', "{"):
        assert cursor.accept(Message("metrics", data, "1")) is None
    assert cursor.after == 0
