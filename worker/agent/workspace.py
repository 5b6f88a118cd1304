"""The directory in which an attempt runs: locked by its agent, filled from blobs, cleaned when the attempt has ended."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from stoker.protocol import BlobFile, ClaimReply, Resume
from worker.agent.api import ServerApi
from worker.agent.cache import BlobCache, Damaged, confined
from worker.agent.spool import Spool
from worker.host.processes import boot_id, myself
from worker.host.records import AGENT, AgentRecord, mark_ended, read_agent, write_whole

CLAIM = "claim.json"


class Occupied(Exception):
    """Another agent of this node has the workspace, or the attempt has ended here."""


class Workspace:
    def __init__(self, home: Path) -> None:
        self.home = home
        self._lock = -1

    def occupy(self, attempt_id: str, epoch: int, agent_id: str) -> None:
        """Makes this process the one agent here, until it and all it started are gone. Raises Occupied."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Occupied("another agent runs this attempt") from error
        before = read_agent(self.home)
        if (self.home / CLAIM).exists() or (before and before.epoch > epoch):
            raise Occupied("the attempt was claimed here before")
        me = myself()
        record = AgentRecord(attempt_id=attempt_id, epoch=epoch, agent_id=agent_id, pid=me.pid, start=me.start, boot_id=boot_id())
        write_whole(self.home / AGENT, record.model_dump_json())

    def remember(self, claim: ClaimReply) -> None:
        """Keeps what another process of this node needs to send the spool's rest if this one dies."""
        write_whole(self.home / CLAIM, json.dumps({"token": claim.token, "epoch": claim.epoch}))
        write_whole(self.home / "spec.json", json.dumps(claim.spec))

    def spool(self) -> Spool:
        return Spool(self.home / "spool")

    def place_datasets(
        self, claim: ClaimReply, api: ServerApi, cache: BlobCache, beat: Callable[[], None], wait: Callable[[], None]
    ) -> None:
        """Puts every data set under data/<ref>/. Raises Damaged, or ValueError for a path that leads out."""
        for dataset in claim.datasets:
            root = confined(self.home / "data", dataset.ref)
            for file in dataset.files:
                _place(file, root, api, cache, beat, wait)

    def restore(
        self, claim: ClaimReply, api: ServerApi, cache: BlobCache, beat: Callable[[], None], wait: Callable[[], None]
    ) -> tuple[int, ...]:
        """Puts the newest undamaged checkpoint in place; answers the steps of damaged ones that were newer.

        Raises Damaged when the job has checkpoints and none is whole.
        """
        corrupt: list[int] = []
        for resume in claim.resume:
            try:
                self._restore(resume, api, cache, beat, wait)
            except (Damaged, ValueError):
                corrupt.append(resume.step)
            else:
                return tuple(corrupt)
        if corrupt:
            raise NoCheckpoint(tuple(corrupt))
        return ()

    def _restore(
        self, resume: Resume, api: ServerApi, cache: BlobCache, beat: Callable[[], None], wait: Callable[[], None]
    ) -> None:
        final = self.home / "checkpoints" / f"step-{resume.step:08d}"
        temporary = self.home / "restore" / final.name
        try:
            for file in resume.files:
                _place(file, temporary, api, cache, beat, wait)
            final.parent.mkdir(exist_ok=True)
            temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def end(self, reason: str) -> None:
        """Marks the attempt as ended here and keeps only its logs, journals and spec."""
        mark_ended(self.home, reason)
        for name in ("data", "checkpoints", "restore", "outbox", "spool", "artifacts"):
            shutil.rmtree(self.home / name, ignore_errors=True)
        (self.home / CLAIM).unlink(missing_ok=True)


class NoCheckpoint(Exception):
    """Every checkpoint of the job is damaged."""

    def __init__(self, steps: tuple[int, ...]) -> None:
        super().__init__(f"checkpoints of steps {', '.join(map(str, steps))} are damaged")
        self.steps = steps


def prune(runs: Path, keep: int) -> None:
    """Deletes the workspaces of ended attempts, except the newest ones."""
    ended: list[tuple[float, Path]] = []
    for marker in runs.glob("*/ended.json"):
        with suppress(FileNotFoundError):
            ended.append((marker.stat().st_mtime, marker.parent))
    for _, home in sorted(ended, reverse=True)[keep:]:
        shutil.rmtree(home, ignore_errors=True)


def _place(
    file: BlobFile, root: Path, api: ServerApi, cache: BlobCache, beat: Callable[[], None], wait: Callable[[], None]
) -> None:
    target = confined(root, file.path)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        cache.fetch(api, file, target, beat, wait)
