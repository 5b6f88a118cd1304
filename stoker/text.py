"""Words of messages: how a value is repeated to the user, and which known word a mistyped one is closest to."""

from collections.abc import Iterable

MAX_ECHO = 80
"""Most characters of input that a message may repeat."""


def shown(value: object) -> str:
    """A scalar as it may be repeated to the user: at most MAX_ECHO characters, control characters escaped."""
    text = repr(value) if isinstance(value, str) else str(value)
    text = {"True": "true", "False": "false", "None": "null"}.get(text, text)
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= MAX_ECHO else text[: MAX_ECHO - 1] + "…"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The closest of some words by edit distance, if it is close for its length."""
    if len(word) > 64:
        return None
    ranked = sorted((distance(word, name), name) for name in known)
    if ranked and ranked[0][0] <= max(1, min(len(word), len(ranked[0][1])) // 3):
        return ranked[0][1]
    return None


def distance(a: str, b: str) -> int:
    """Edits, insertions, deletions and swaps of neighbours between two words (Damerau 1964, restricted)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        older, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return row[-1]


def counted(count: int, noun: str) -> str:
    """A number with its noun: `1 error`, `2 errors`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
