"""Every example of a feature through the whole system: submitted over HTTP, placed on two workers, trained to its end.

What a feature computes is proven where it is built; here it passes every door on its way, and nothing on it is dead. `make test`
sends them as far as the plan: the doors behind that are those of `test_union_members`, by a job for each path.
"""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from stoker.document.load import load_file
from tests.support.data import digits_csv, upload, wine_csv
from tests.support.directories import gpt2_directory
from tests.support.stack import Stack

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "features").glob("*.yaml"))
NEEDS_ANOTHER = "job: "
"""An example that says so in its text is about an earlier job, and has a test of its own."""


def _text() -> bytes:
    return ("in the beginning was the word and the word was with the fire and the fire was warm. " * 400).encode()


def _sentences() -> bytes:
    """A table of short texts, and what each is about."""
    about = {"fire": "the {} was warm and bright", "rain": "on the hill the {} fell all night long"}
    seen = ("old", "new", "red", "far", "near", "last", "first", "long")
    rows = [f"{about[what].format(word)},{what}" for what in about for word in seen * 15]
    return "\n".join(["sentence,label", *rows, ""]).encode()


def _arrays(**values: np.ndarray[Any, Any]) -> dict[str, bytes]:
    files = {}
    for name, array in values.items():
        out = io.BytesIO()
        np.save(out, array)
        files[f"{name}.npy"] = out.getvalue()
    return files


def _datasets() -> dict[str, dict[str, bytes]]:
    """What the examples learn from, by name."""
    return {
        "digits": {"digits.csv": digits_csv()},
        "words": {"words.txt": _text()},
        "wine": {"wine.csv": wine_csv()},
        "sentences": {"sentences.csv": _sentences()},
        "tiny-gpt": gpt2_directory(),
    }


@pytest.fixture(scope="module", autouse=True)
def uploaded(installation: Stack) -> None:
    for name, files in _datasets().items():
        upload(installation, name, files)


@pytest.fixture(scope="module")
def jobs(installation: Stack) -> dict[str, str]:
    """Ids by example, all submitted at once."""
    made = {}
    for path in EXAMPLES:
        if NEEDS_ANOTHER not in path.read_text():
            made[path.stem] = installation.submit(dict(load_file(path).value))
    return made


@pytest.mark.parametrize("path", [path for path in EXAMPLES if NEEDS_ANOTHER not in path.read_text()], ids=lambda path: path.stem)
def test_an_example_of_a_feature_is_planned(path: Path, installation: Stack) -> None:
    plan = installation.post("/v1/plans", dict(load_file(path).value))["plan"]
    assert plan["fits"] is not False
    assert min(plan["parameters"]["total"], plan["batch"]["size"]) > 0


@pytest.mark.proves("ARCH-01", "ARCH-02", "ARCH-03", "ARCH-21", cases=["cnn"])
@pytest.mark.proves("ARCH-04", cases=["layers", "text_layers"])
@pytest.mark.proves("ARCH-05", "ARCH-06", "ARCH-07", "ARCH-10", "ARCH-17", cases=["layers"])
@pytest.mark.proves("ARCH-24", cases=["gan"])
@pytest.mark.proves("DIST-01", "DIST-06", "DIST-07", "DIST-10")
@pytest.mark.proves("LOSS-03", cases=["chunked_loss"])
@pytest.mark.proves("LOSS-05", cases=["gaussian_nll"])
@pytest.mark.proves("LOSS-06", cases=["focal"])
@pytest.mark.proves("REG-05", cases=["cnn", "layers"])
@pytest.mark.proves("REG-09", cases=["regularization"])
@pytest.mark.thorough("each example trains; make test plans it, and trains a job for each path through the system")
@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES if NEEDS_ANOTHER not in path.read_text()])
def test_an_example_of_a_feature_trains_to_its_end(name: str, installation: Stack, jobs: dict[str, str], tmp_path: Path) -> None:
    job = installation.wait(jobs[name], timeout=280)
    assert job["state"] == "succeeded", installation.story(jobs[name])
    assert job["metrics"], "a run ends with figures"
    losses = [value for key, value in job["metrics"].items() if key.endswith("/loss")]
    assert losses
    assert all(math.isfinite(value) for value in losses)
    manifest = installation.get(f"/v1/jobs/{job['id']}/checkpoints/last")
    assert "model.safetensors" in {entry["path"] for entry in manifest["files"]}
    with installation.http as http:
        answer = http.get(f"/v1/jobs/{job['id']}/checkpoints/last/files/model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(answer.content)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        held = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118  # it is no dict
    assert held >= job["plan"]["parameters"]["total"] > 0, "the file has every weight that was planned, and maybe buffers"
