"""From a request to a stored job: remembered documents, the shared write, and a second look when a data set has moved."""

import hashlib
from collections import OrderedDict

from server.auth import Principal
from server.db import Database
from server.idempotency import Answer, Claim
from server.jobs.prepared import Prepared, Preparer
from server.jobs.submit import Moved, QueueLimit, Submission, submit_all
from server.references.reference import Asked
from server.settings import Settings
from stoker.document.document import Document

Mark = tuple[str | None, str, bool, bytes]
"""The key's project, the project acted in, whether the document came as YAML, the digest of the body."""
_KEPT = 256
_SMALL = 16 * 1024
"""Bytes of a body up to which its document is prepared with others that wait; a larger one must not keep them waiting."""


class Intake:
    """Prepares documents and stores their jobs; owns what is remembered of both. One for each server process.

    Args:
        db: Where jobs are stored.
        settings: How many jobs of one project may wait.
    """

    def __init__(self, db: Database, settings: Settings) -> None:
        self.limit = QueueLimit(settings)
        self._db, self._preparer = db, Preparer()
        self._remembered: OrderedDict[Mark, Prepared] = OrderedDict()
        """Touched by the event loop only."""

    async def prepare(self, who: Principal, project: str, document: Document) -> Prepared:
        """The document resolved and planned. Raises what `Preparer.prepare` refuses."""
        return await self._db.read(lambda session: self._preparer.prepare(session, who, project, document))

    async def submit(
        self, who: Principal, project: str, document: Document, body: bytes, gates: tuple[str, ...], claim: Claim | None
    ) -> tuple[Answer, bool]:
        """Store a job for a document; the answer, and whether it is a replay.

        A body that was understood before is not prepared again: the write sees whether its data set is still the newest.
        Raises what `Preparer.prepare` and `submit_all` refuse.
        """
        mark = (who.project, project, bool(document.sources), hashlib.sha256(body).digest())
        known = self._remembered.get(mark)
        if known is not None:
            try:
                return await self._write(Submission(known, gates, claim, True, self.limit))
            except Moved:
                self._remembered.pop(mark, None)
        if len(body) <= _SMALL:
            prepared = await self._db.read_together(self._preparer.prepare_all, Asked(who, project, document))
        else:
            prepared = await self.prepare(who, project, document)
        if "extends" not in document.value and prepared.lasting:
            self._remember(mark, prepared)
        return await self._write(Submission(prepared, gates, claim, False, self.limit))

    async def _write(self, submission: Submission) -> tuple[Answer, bool]:
        return await self._db.write_together(submit_all, submission)

    def _remember(self, mark: Mark, prepared: Prepared) -> None:
        self._remembered[mark] = prepared
        if len(self._remembered) > _KEPT:
            self._remembered.popitem(last=False)
