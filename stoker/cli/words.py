"""Numbers as people read them."""

from datetime import UTC, datetime


def duration(seconds: float | None) -> str:
    """`4.2s`, `3m 07s`, `2h 05m`, `3d 4h`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours < 24 else f"{hours // 24}d {hours % 24}h"


def size(count: float | None) -> str:
    """`512 B`, `3.4 MiB`."""
    if count is None:
        return "–"
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def count(value: float | None) -> str:
    """`1,234`, `12.3M`, `1.20e+15`."""
    if value is None:
        return "–"
    if abs(value) < 1_000_000:
        return f"{value:,.0f}"
    for limit, unit in ((1e9, "M"), (1e12, "G"), (1e15, "T")):
        if abs(value) < limit:
            return f"{value / (limit / 1000):.1f}{unit}"
    return f"{value:.2e}"


def counted(number: int, noun: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def measure(value: float | str | None) -> str:
    """A metric's value: four significant digits, NaN spelled out."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:.4g}"


def age(when: datetime | None, now: datetime | None = None) -> str:
    """How long ago, coarsely."""
    return "–" if when is None else coarse(max(0.0, ((now or datetime.now(UTC)) - when).total_seconds()))


def coarse(seconds: float) -> str:
    """To the largest unit: `8s`, `12m`, `3h`, `9d`."""
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= length:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.0f}s"


def between(start: datetime | None, end: datetime | None) -> float | None:
    """Seconds from start to end, or to now."""
    return None if start is None else max(0.0, ((end or datetime.now(UTC)) - start).total_seconds())


BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: list[float], width: int = 40) -> str:
    """A curve in one line: the mean of each stretch, from the lowest to the highest value; gaps for NaN."""
    finite = [v for v in values if v == v and abs(v) != float("inf")]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    step = max(1.0, len(values) / width)
    parts = [values[int(i * step) : max(int(i * step) + 1, int((i + 1) * step))] for i in range(min(width, len(values)))]
    return "".join(_block(part, low, high) for part in parts)


def _block(part: list[float], low: float, high: float) -> str:
    good = [v for v in part if v == v and abs(v) != float("inf")]
    if not good:
        return " "
    share = 0.0 if high == low else (sum(good) / len(good) - low) / (high - low)
    return BLOCKS[min(len(BLOCKS) - 1, int(share * len(BLOCKS)))]


def bar(fraction: float | None, width: int = 24) -> str:
    """`━━━━╸────`."""
    filled = 0 if fraction is None else round(max(0.0, min(1.0, fraction)) * width)
    return "━" * filled + "─" * (width - filled)
