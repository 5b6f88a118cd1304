"""From a request to a stored job: remembered documents, the shared write, and a second look when a data set has moved."""

import hashlib
from collections import OrderedDict

from server.auth import Principal
from server.deps import Runtime
from server.idempotency import Answer, Claim
from server.jobs.prepared import Prepared, prepare, prepare_all
from server.jobs.submit import Moved, Submission, submit_all
from server.references.reference import Asked
from stoker.document.document import Document

Mark = tuple[str | None, str, bool, bytes]
"""The key's project, the project acted in, whether the document came as YAML, the digest of the body."""
_remembered: OrderedDict[Mark, Prepared] = OrderedDict()
"""Touched by event loops only."""
_KEPT = 256
_SMALL = 16 * 1024
"""Bytes of a body up to which its document is worked out together with others; a larger one must not keep them waiting."""


async def submit(
    runtime: Runtime, who: Principal, project: str, document: Document, body: bytes, gates: tuple[str, ...], claim: Claim | None
) -> tuple[Answer, bool]:
    """Store a job for a document; the answer, and whether it is a replay.

    A body that was understood before is not worked out again: the write sees whether its data set is still the newest.
    Raises what `prepare` and `submit_all` refuse.
    """
    mark = (who.project, project, bool(document.sources), hashlib.sha256(body).digest())
    known = _remembered.get(mark)
    if known is not None:
        try:
            return await _write(runtime, Submission(known, gates, claim, True, runtime.settings.max_queued_jobs))
        except Moved:
            _remembered.pop(mark, None)
    if len(body) <= _SMALL:
        prepared = await runtime.db.read_together(prepare_all, Asked(who, project, document))
    else:
        prepared = await runtime.db.read(lambda s: prepare(s, who, project, document))
    if "extends" not in document.value and prepared.lasting:
        _remember(mark, prepared)
    return await _write(runtime, Submission(prepared, gates, claim, False, runtime.settings.max_queued_jobs))


async def _write(runtime: Runtime, submission: Submission) -> tuple[Answer, bool]:
    return await runtime.db.write_together(submit_all, submission)


def _remember(mark: Mark, prepared: Prepared) -> None:
    _remembered[mark] = prepared
    if len(_remembered) > _KEPT:
        _remembered.popitem(last=False)
