"""Frames: the numbered records an attempt reports, the same bytes on the agent's disk and on the wire.

A frame is `magic u16 | header bytes u32 | payload bytes u32 | crc32 u32 | header JSON | payload`, little-endian; the CRC
covers header and payload. A report is frames one after another. Each frame has the attempt's next sequence number, from 1
without gaps, and never changes once numbered: the server stores each number once and answers the last of the stored prefix.
"""

import json
import struct
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAGIC = 0x5F53
_FIXED = struct.Struct("<HIII")
MAX_HEADER = 1 << 20
MAX_PAYLOAD = 4 << 20
MEDIA_TYPE = "application/x-stoker-frames"

KINDS = ("phase", "started", "metrics", "logs", "progress", "checkpoint", "artifact", "notice")
"""What a frame may carry. Header keys beside `seq` and `kind`:

phase       name, t
started     step, total_steps, parameters, world_size, device
metrics     keys (list of str), rows (int), first_step, last_step, last (key -> last value as float, non-finite as string);
            payload: see `pack_metrics`
logs        rank (int), stream ("out" or "err"), offset (bytes of that rank and stream before this chunk); payload: raw bytes
progress    step, epoch, samples, tokens
checkpoint  step, metrics, final, files (list of {path, bytes, sha256}) — every blob was uploaded before
artifact    name, bytes, sha256 — the blob was uploaded before
notice      level, code, message, step, data
"""


class BadFrame(ValueError):
    """The bytes are not a frame: torn, damaged or foreign."""


@dataclass(frozen=True)
class Frame:
    seq: int
    kind: str
    header: Mapping[str, Any]
    payload: bytes = b""

    def encode(self) -> bytes:
        head = json.dumps({"seq": self.seq, "kind": self.kind, **self.header}, separators=(",", ":"), allow_nan=False).encode()
        if len(head) > MAX_HEADER or len(self.payload) > MAX_PAYLOAD:
            raise BadFrame("frame too large")
        crc = zlib.crc32(self.payload, zlib.crc32(head))
        return _FIXED.pack(MAGIC, len(head), len(self.payload), crc) + head + self.payload


def decode(data: bytes | memoryview) -> Iterator[Frame]:
    """Frames of a report or of a spool file, in order.

    Raises BadFrame at the first byte that is not part of a whole, undamaged frame.
    """
    view, at = memoryview(data), 0
    while at < len(view):
        frame, at = decode_one(view, at)
        yield frame


def decode_one(view: memoryview, at: int) -> tuple[Frame, int]:
    """The frame at an offset and the offset after it. Raises BadFrame."""
    if len(view) - at < _FIXED.size:
        raise BadFrame("torn frame")
    magic, head_len, body_len, crc = _FIXED.unpack_from(view, at)
    start = at + _FIXED.size
    end = start + head_len + body_len
    if magic != MAGIC or head_len > MAX_HEADER or body_len > MAX_PAYLOAD:
        raise BadFrame("not a frame")
    if end > len(view):
        raise BadFrame("torn frame")
    head, body = bytes(view[start : start + head_len]), bytes(view[start + head_len : end])
    if zlib.crc32(body, zlib.crc32(head)) != crc:
        raise BadFrame("damaged frame")
    try:
        header = json.loads(head)
        seq, kind = header.pop("seq"), header.pop("kind")
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise BadFrame("bad header") from error
    if type(seq) is not int or seq < 1 or type(kind) is not str:
        raise BadFrame("bad header")
    return Frame(seq, kind, header, body), end


def pack_metrics(steps: Sequence[int], columns: Mapping[str, Sequence[float]]) -> bytes:
    """Columns of one metrics frame as bytes: steps as int64, then per key of `keys`, in order, float64; all little-endian.

    `steps` has one entry per row, each column as many; a value missing at a row is the NaN with payload `MISSING`.
    """
    out = array("q", steps)
    return out.tobytes() + b"".join(array("d", values).tobytes() for values in columns.values())


MISSING_BITS = 0x7FF8_0000_DEAD_0000
"""Bits of the NaN that marks a key without a value at a row, apart from a NaN that was measured."""
MISSING: float = struct.unpack("<d", struct.pack("<Q", MISSING_BITS))[0]
