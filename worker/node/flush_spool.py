"""Sends what a dead agent had numbered but not yet reported."""

import logging
import shutil
from pathlib import Path

from pydantic import ValidationError

from worker.agent.api import ApiFailure, ServerApi
from worker.agent.reporter import BATCH_BYTES
from worker.agent.spool import Spool
from worker.host.records import Token
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)


def flush_spool(home: Path, attempt_id: str, settings: WorkerSettings, timeout: float) -> None:
    """One try: frames are the lesser loss, and the attempt's end must not wait for them. Raises nothing but a full disk."""
    try:
        token = Token.model_validate_json((home / "claim.json").read_bytes())
        spool = Spool(home / "spool")
    except (OSError, ValidationError):
        return
    api = ServerApi(settings.url, token.token, timeout, token.epoch)
    try:
        acked = api.report(attempt_id, b"").acked_through
        while acked < spool.last_seq:
            body, _ = spool.batch(acked, BATCH_BYTES)
            stored = api.report(attempt_id, body).acked_through
            if stored <= acked:
                return
            acked = stored
    except ApiFailure as error:
        log.warning("%s: the rest of its spool was not sent: %s", attempt_id, error)
    finally:
        api.close()
        spool.close()


def clear(home: Path) -> None:
    """Leaves a dead agent's logs and journals only."""
    for name in ("data", "checkpoints", "restore", "outbox", "spool", "artifacts"):
        shutil.rmtree(home / name, ignore_errors=True)
    (home / "claim.json").unlink(missing_ok=True)
