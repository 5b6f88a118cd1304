"""Numbers as JSON: what JSON has no number for becomes the string that Python and JavaScript read."""

import math
from collections.abc import Sequence


def plain(value: float) -> float | str:
    """The number, or "NaN", "Infinity", "-Infinity"."""
    if math.isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def plains(values: Sequence[float]) -> list[float | str]:
    return [plain(value) for value in values]
