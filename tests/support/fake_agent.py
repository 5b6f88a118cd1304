"""Runs the real agent with the fake trainer: `python -m tests.support.fake_agent ATTEMPT EPOCH fresh|fork`."""

import logging
import sys
from pathlib import Path

from tests.support import fake_trainer
from worker.agent.run import run_agent
from worker.agent.spawn import ForkSpawner, FreshSpawner, Spawner
from worker.settings import load_settings

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    spawner: Spawner = ForkSpawner(fake_trainer.main)
    if sys.argv[3] == "fresh":
        spawner = FreshSpawner((sys.executable, str(Path(fake_trainer.__file__))))
    sys.exit(run_agent(sys.argv[1], int(sys.argv[2]), load_settings(), spawner))
