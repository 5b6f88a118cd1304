"""Real data for tests, and the jobs that learn from it."""

import csv
import gzip
import hashlib
import io
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.support.stack import Stack

PERFORMANCE = ("_per_second", "_seconds", "_seconds_min", "_seconds_max", "_wait_share", "memory_gb", "/mfu")
"""Ends of the metrics that tell speed and use, which differ between equal runs."""


@cache
def _scikit_learn() -> Path:
    """The folder of its data sets, which are read without importing it: that takes seconds in each process of a test run."""
    found = find_spec("sklearn")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "datasets" / "data"


def _table(header: list[str], rows: list[list[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue().encode()


@cache
def digits_csv() -> bytes:
    """1,797 handwritten digits of 8 x 8 pixels (scikit-learn), the class in column `label`."""
    lines = gzip.decompress((_scikit_learn() / "digits.csv.gz").read_bytes()).decode().splitlines()
    return _table([f"p{i}" for i in range(64)] + ["label"], [line.split(",") for line in lines])


WINE = ("alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols", "flavanoids", "nonflavanoid_phenols")
WINE += ("proanthocyanins", "color_intensity", "hue", "od280/od315_of_diluted_wines", "proline")
"""Columns of the wines."""


@cache
def wine_csv() -> bytes:
    """178 wines (scikit-learn) by their chemistry, three cultivars named in column `cultivar`."""
    (*_, a, b, c), *lines = csv.reader((_scikit_learn() / "wine_data.csv").read_text("utf-8").splitlines())
    rows = [[*(str(float(value)) for value in values), (a, b, c)[int(kind)]] for *values, kind in lines]
    return _table([*WINE, "cultivar"], rows)


def upload(stack: Stack, name: str, files: dict[str, bytes]) -> str:
    """Store a data set through the API; returns its pinned reference, `name@version`."""
    manifest = [{"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in files.items()]
    with stack.http as http:
        for entry, data in zip(manifest, files.values(), strict=True):
            stored = http.put(f"/v1/blobs/{entry['sha256']}", content=data, headers={"Content-Type": "application/octet-stream"})
            assert stored.status_code < 300, stored.text
        made = http.post("/v1/datasets", json={"name": name, "files": manifest})
        assert made.status_code < 300, made.text
    return f"{name}@{made.json()['version']}"


def digits_job(**sections: Any) -> dict[str, Any]:
    """A two-rank classifier on digits with dropout and accumulation, so that every random stream and every sum matters."""
    spec: dict[str, Any] = {
        "name": "digits",
        "reproducibility": {"seed": 7},
        "task": {"type": "classification", "target": "label"},
        "model": {"type": "mlp", "hidden_sizes": [64, 32], "dropout": 0.1},
        "data": {
            "source": {"type": "csv", "dataset": "digits"},
            "split": {"validation": 0.15, "test": 0.15},
            "normalization": {"type": "standard"},
        },
        "optimizer": {"type": "adamw", "lr": 3e-3},
        "schedule": {"type": "cosine", "warmup_steps": 20},
        "training": {"max_steps": 400, "batch_size": 48, "gradient_accumulation_steps": 2},
        "distributed": {"strategy": "ddp", "processes_per_node": 2},
        "evaluation": {"interval": {"steps": 100}},
        "checkpoint": {"interval": {"steps": 50}},
        "logging": {"interval": {"steps": 5}},
    }
    return spec | sections
