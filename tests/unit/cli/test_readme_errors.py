"""The mistakes that the README shows are what `stoker validate` prints."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
WRONG = """\
name: wrong
task: {type: classification, target: label}
model: {type: mlp, hiden_sizes: [64], activation: rellu}
data: {source: {type: csv, dataset: digits}}
training: {epochs: 1, batch_size: 32}
optimizer:
  type: adamw
  learning_rate: 1e-3
"""


def test_the_readme_shows_what_validate_prints(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(WRONG)
    command = [sys.executable, "-m", "stoker.cli", "validate", "wrong.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    [shown] = re.findall(r"^```text\n(error\[.*?)^```$", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    assert done.returncode == 2
    assert done.stderr.startswith(shown)
