"""The example of fine-tuning, as a person runs it: what was learned before is worth something."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_was_learned_before_beats_a_cold_start_at_equal_steps() -> None:
    done = subprocess.run([sys.executable, "-m", "examples.finetune"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(re.findall(r"^(\w+) +accuracy ([0-9.]+)", done.stdout, re.MULTILINE))
    assert said.keys() == {"cold", "transfer", "frozen", "lora"}
    accuracy = {name: float(value) for name, value in said.items()}
    assert min(value for name, value in accuracy.items() if name != "cold") > accuracy["cold"], accuracy
    assert done.stdout.count("frozen weights unchanged to the bit: True") == 2
