"""Standard input: {"files": [{"path", "location"}], "format", "delimiter", "memory_bytes", "seconds"}. Standard output: one
JSON object, {"content": stoker.facts content} or {"rejected": {"code", "message", "path", "line"}}.
"""

import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.datasets.measure.array_files import measure_arrays
from server.datasets.measure.csv_table import measure_csv
from server.datasets.measure.image_folder import measure_images
from server.datasets.measure.magic import kind_of
from server.datasets.measure.parquet_table import measure_parquet
from server.datasets.measure.plain_text import measure_text
from server.datasets.measure.reject import Rejected, reject
from server.datasets.measure.weight_files import is_weights, measure_weights
from stoker.facts import ArrayFacts, ImageFacts, TableFacts, TextFacts, WeightFacts

Files = Sequence[tuple[str, Path]]


def main() -> int:
    request = json.load(sys.stdin)
    _confine(int(request["memory_bytes"]), int(request["seconds"]))
    files = sorted((entry["path"], Path(entry["location"])) for entry in request["files"])
    try:
        content = measure(files, request.get("format"), request.get("delimiter"))
        answer: dict[str, Any] = {"content": content.model_dump(mode="json")}
    except Rejected as error:
        answer = {"rejected": {"code": error.code, "message": error.message, "path": error.path, "line": error.line}}
    except MemoryError:
        answer = {
            "rejected": {
                "code": "dataset_rejected",
                "message": "Reading it takes more memory than allowed.",
                "path": None,
                "line": None,
            }
        }
    json.dump(answer, sys.stdout)
    return 0


def measure(
    files: Files, wanted: str | None, delimiter: str | None
) -> TableFacts | TextFacts | ImageFacts | ArrayFacts | WeightFacts:
    """What the files hold. Raises Rejected."""
    if is_weights(files):
        if wanted not in (None, "weights"):
            reject(f"The file is not of the format {wanted}.", files[0][0])
        _check_flat(files)
        return measure_weights(files)
    kinds = {path: kind_of(path, location) for path, location in files}
    for path, kind in kinds.items():
        if kind != kinds[files[0][0]]:
            reject("The files of one data set have one format; this one differs from the first.", path)
    found = kinds[files[0][0]]
    plain = wanted if wanted in ("csv", "text") else _by_name(files)
    found_as = plain if found == "plain" else found
    if wanted is not None and wanted != found_as:
        reject(f"The file is not of the format {wanted}.", files[0][0])
    if found_as != "image_folder":
        _check_flat(files)
    match found_as:
        case "csv":
            return measure_csv(files, delimiter)
        case "parquet":
            return measure_parquet(files)
        case "image_folder":
            return measure_images(files)
        case "arrays":
            return measure_arrays(files)
        case _:
            return measure_text(files)


def _by_name(files: Files) -> str:
    """CSV and text begin alike: the name says which is meant."""
    return "csv" if all(path.lower().endswith((".csv", ".tsv")) for path, _ in files) else "text"


def _check_flat(files: Files) -> None:
    for path, _ in files:
        if "/" in path:
            reject("Only pictures come in folders.", path)


def _confine(memory: int, seconds: int) -> None:
    """From here on this process can neither grow, nor run for long, nor write a file, nor leave a core."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(main())
