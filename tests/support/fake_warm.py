"""A warm interpreter with the fake trainer in place of torch: `python -m tests.support.fake_warm`."""

import logging

from tests.support import fake_trainer
from worker.host.detached import close_inherited
from worker.node.fingerprint import fingerprint
from worker.node.warm_server import WarmServer
from worker.settings import load_settings

if __name__ == "__main__":
    close_inherited()
    logging.basicConfig(level=logging.INFO)
    settings = load_settings()
    WarmServer(settings, fingerprint(settings), fake_trainer.main, lambda: None).serve()
