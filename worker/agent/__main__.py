"""`python -m worker.agent ATTEMPT_ID EPOCH` runs one attempt from a fresh interpreter, its ranks too."""

import logging
import sys

from worker.agent.run import run_agent
from worker.agent.spawn import FreshSpawner
from worker.host.detached import close_inherited
from worker.host.hint import parse_hint
from worker.settings import load_settings


def main(arguments: list[str]) -> int:
    """Answers the exit code: 0 when the attempt was run to its end, 1 when it was not ours, 2 for bad arguments."""
    close_inherited()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        attempt_id, epoch = arguments
        hint = parse_hint(attempt_id, int(epoch))
    except ValueError as error:
        sys.stderr.write(f"usage: python -m worker.agent ATTEMPT_ID EPOCH ({error})\n")
        return 2
    return run_agent(hint.attempt_id, hint.epoch, load_settings(), FreshSpawner())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
