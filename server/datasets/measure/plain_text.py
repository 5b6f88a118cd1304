"""UTF-8 text; several files are joined in name order."""

import codecs
from collections.abc import Sequence
from pathlib import Path

from server.datasets.measure.csv_table import check_text
from server.datasets.measure.reject import reject
from stoker.facts import TextFacts


def measure_text(files: Sequence[tuple[str, Path]]) -> TextFacts:
    """Raises Rejected with the file and line of the first byte that is not UTF-8 text."""
    size = characters = 0
    distinct: set[str] = set()
    for path, location in files:
        check_text(path, location)
        decoder = codecs.getincrementaldecoder("utf-8")()
        with location.open("rb") as file:
            while chunk := file.read(1 << 20):
                text = decoder.decode(chunk)
                size, characters = size + len(chunk), characters + len(text)
                distinct.update(text)
    if not characters:
        reject("The text is empty.", files[0][0], 1)
    return TextFacts(bytes=size, characters=characters, distinct_characters=len(distinct))
