"""The README's tour, command by command as written."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.stack import ROOT

TOUR = re.findall(r"^```bash tour\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
LENT = ("stoker", "server", "worker", "examples", "migrations", "alembic.ini", "pyproject.toml", "constraints.txt")


def test_the_tour_works_as_written(tmp_path: Path) -> None:
    assert len(TOUR) == 4
    for name in LENT:
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    kept = {k: v for k, v in os.environ.items() if not k.startswith("STOKER_")}
    environment = kept | {"HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    script = "set -euo pipefail\n" + "\n".join(TOUR)
    try:
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert "event: end" in done.stdout
        assert (tmp_path / "model" / "model.safetensors").exists()
        assert '<testcase name="test/accuracy&gt;=0.97"' in (tmp_path / "out.xml").read_text()
    finally:
        subprocess.run(
            [sys.executable, "-m", "stoker.cli", "up", "--stop"], cwd=tmp_path, env=environment, capture_output=True, timeout=90
        )
