"""The committed API description is the one that the code makes."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = ("job.schema.json", "openapi.json")


def drift(committed: Path, made: Path) -> list[str]:
    """Files that are missing, or whose content differs, with the first path at which it does."""
    found = []
    for name in FILES:
        if not (committed / name).is_file():
            found.append(f"{name} is not committed; run `make openapi`")
            continue
        old, new = (json.loads((folder / name).read_text()) for folder in (committed, made))
        if old != new:
            found.append(f"{name} differs at {_first_difference(old, new)}; run `make openapi`")
    return found


def _first_difference(old: object, new: object, at: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key))
        return _first_difference(old.get(key), new.get(key), f"{at}/{key}")
    return at or "/"


def test_committed_files_are_those_the_code_makes(tmp_path: Path) -> None:
    environment = {**os.environ, "STOKER_STATE_DIR": str(tmp_path / "state")}
    command = [sys.executable, "-m", "server", "openapi", str(tmp_path / "made")]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=120)
    assert drift(ROOT / "openapi", tmp_path / "made") == []


def test_drift_is_reported(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, version in ((old, "1"), (new, "2")):
        folder.mkdir()
        (folder / "openapi.json").write_text(json.dumps({"info": {"title": "Stoker", "version": version}}))
    (new / "job.schema.json").write_text("{}")
    assert drift(old, new) == [
        "job.schema.json is not committed; run `make openapi`",
        "openapi.json differs at /info/version; run `make openapi`",
    ]
