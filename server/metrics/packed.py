"""A metrics frame's payload as arrays, checked to the byte."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.errors import Refusal, problem
from stoker.frames import MISSING_BITS, Frame

MAX_KEYS = 1000
MAX_STEP = 2**31 - 1

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Columns:
    """Steps (rows,) and a column (rows,) per key, as views of the payload."""

    keys: tuple[str, ...]
    steps: Ints
    values: Sequence[Floats]

    def present(self, at: int) -> npt.NDArray[np.bool_]:
        """Rows at which a key has a value; a measured NaN is one."""
        return np.not_equal(self.values[at].view(np.uint64), MISSING_BITS)


def unpack(keys: Sequence[str], rows: int, packed: bytes) -> Columns:
    """The arrays of a stored payload (stoker.frames.pack_metrics), by step; points of one step keep their order."""
    table = np.frombuffer(packed, "<i8").reshape(1 + len(keys), rows)
    if bool(np.any(table[0, 1:] < table[0, :-1])):
        table = table[:, np.argsort(table[0], kind="stable")]
    return Columns(tuple(keys), table[0], list(table[1:].view("<f8")))


def checked(frame: Frame) -> Columns:
    """The arrays of a reported frame. Raises 422 `frame_invalid`."""
    keys, rows = frame.header.get("keys"), frame.header.get("rows")
    if not isinstance(keys, list) or not 1 <= len(keys) <= MAX_KEYS or not all(_is_key(key) for key in keys):
        raise invalid("keys is a list of 1 to 1000 metric names.")
    if len(set(keys)) != len(keys):
        raise invalid("keys names one metric twice.")
    if type(rows) is not int or rows < 1 or len(frame.payload) != 8 * rows * (1 + len(keys)):
        raise invalid("rows and keys do not fit the payload.")
    columns = unpack(keys, rows, frame.payload)
    steps = columns.steps
    if int(steps[0]) < 0 or int(steps[-1]) > MAX_STEP:
        raise invalid("steps are out of range.")
    if (frame.header.get("first_step"), frame.header.get("last_step")) != (int(steps[0]), int(steps[-1])):
        raise invalid("first_step and last_step do not fit the payload.")
    return columns


def invalid(detail: str) -> Refusal:
    return problem(422, "frame_invalid", detail)


def _is_key(key: object) -> bool:
    return isinstance(key, str) and 1 <= len(key) <= 128 and key.isprintable() and "," not in key
