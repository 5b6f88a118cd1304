"""`python -m worker.warm`: imports torch and the trainer, then forks agents on request (`worker.node.warm_server`).

The one module of the worker, beside the trainer itself, that may import torch.
"""

import fcntl
import logging
import os
import sys
from pathlib import Path

from worker.host.detached import close_inherited
from worker.node.fingerprint import fingerprint
from worker.node.warm_server import WarmServer
from worker.node.warm_socket import warm_directory
from worker.settings import load_settings
from worker.trainer import warm_imports


def main() -> int:
    """Answers the exit code: 0 after a life of service, 1 when another serves this state directory already."""
    close_inherited()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = load_settings()
    mark = fingerprint(settings)  # Before the imports: what changes meanwhile must not pass for what was loaded.
    lock = os.open(warm_directory(settings) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Of this process alone: forks do not share it.
    except OSError:
        return 1
    warm_imports()
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        logging.error("an import started %d threads; forking would not be safe", threads - 1)
        return 1
    WarmServer(settings, mark, _train, _reseed).serve()
    return 0


def _train(home: Path) -> int:
    import torch

    from worker.trainer.__main__ import main as train

    # OpenMP read its environment when torch was imported, long before this rank's was made.
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return train(home)


def _reseed() -> None:
    import numpy
    import torch

    torch.manual_seed(int.from_bytes(os.urandom(8), "little") >> 1)
    numpy.random.seed(int.from_bytes(os.urandom(4), "little"))


if __name__ == "__main__":
    sys.exit(main())
