"""The two values that a wake-up carries, checked: whoever can write to the broker can send anything."""

import re
from dataclasses import dataclass

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Hint:
    attempt_id: str
    epoch: int


def parse_hint(attempt_id: object, epoch: object) -> Hint:
    """Raises ValueError for anything but an id that may be a directory's name and a count."""
    if not isinstance(attempt_id, str) or not _ID.fullmatch(attempt_id):
        raise ValueError("attempt_id is not an id")
    if type(epoch) is not int or not 0 <= epoch < 2**31:
        raise ValueError("epoch is not a count")
    return Hint(attempt_id, epoch)
