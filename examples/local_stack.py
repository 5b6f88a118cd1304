"""Run broker, server and worker on this machine while an example runs, with their state in a temporary folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stoker.cli.stack import control
from stoker.cli.stack.files import StackFiles
from stoker.client import Client, load_config


@contextmanager
def stack(folder: Path) -> Iterator[Client]:
    for name in [name for name in os.environ if name.startswith("STOKER_")]:
        del os.environ[name]
    files = StackFiles.at(folder)
    try:
        control.detach(files, ["--state-dir", str(files.root), "--worker", "examples"])
        config = load_config(environment={"STOKER_STATE_DIR": str(files.root)})
        with Client(config.url.value, config.key.value, "default") as client:
            yield client
    finally:
        control.stop(files)
