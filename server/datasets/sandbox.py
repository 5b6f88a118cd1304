"""Runs `server.datasets.measure` on files that anyone may have made, in a process with hard limits."""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic_settings import BaseSettings, SettingsConfigDict

from server.blobs.store import BlobStore
from server.errors import Refusal, problem, unavailable
from stoker.errors import Finding
from stoker.facts import ArrayFacts, ImageFacts, TableFacts, TextFacts, WeightFacts
from stoker.protocol import BlobFile

_ROOT = Path(__file__).resolve().parents[2]
_CONTENT: TypeAdapter[TableFacts | TextFacts | ImageFacts | ArrayFacts | WeightFacts] = TypeAdapter(
    Annotated[TableFacts | TextFacts | ImageFacts | ArrayFacts | WeightFacts, Field(discriminator="kind")]
)


class MeasureSettings(BaseSettings):
    """STOKER_DATASET_… variables."""

    model_config = SettingsConfigDict(env_prefix="STOKER_DATASET_", frozen=True, extra="ignore")

    seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    """Wall and processor time to read one data set."""
    memory_bytes: Annotated[int, Field(ge=1 << 29)] = 4 << 30
    """Address space to read it in."""
    at_once: Annotated[int, Field(ge=1, le=64)] = 2
    waiting: Annotated[int, Field(ge=0, le=1024)] = 16
    """Data sets that may wait for their turn; more get 503."""


class Sandbox:
    """The turnstile before the measuring processes. Blocking: call `measure` from a thread."""

    def __init__(self, settings: MeasureSettings | None = None) -> None:
        self.settings = settings or MeasureSettings()
        self._turn = threading.BoundedSemaphore(self.settings.at_once)
        self._room = threading.BoundedSemaphore(self.settings.at_once + self.settings.waiting)

    def measure(
        self, store: BlobStore, files: Sequence[BlobFile], wanted: str | None, delimiter: str | None
    ) -> TableFacts | TextFacts | ImageFacts | ArrayFacts | WeightFacts:
        """What the files hold.

        Raises 422 `dataset_rejected`, 415 `format_not_allowed`, 503 `busy_measuring` or `blob_unavailable`.
        """
        if not self._room.acquire(blocking=False):
            raise unavailable("busy_measuring", "Other data sets are being read; try again.", retry_after=10)
        try:
            with self._turn, tempfile.TemporaryDirectory(prefix="measure-", dir=store.partials.root.parent) as scratch:
                located = [{"path": f.path, "location": str(_locate(store, f, Path(scratch)))} for f in files]
                answer = self._run({"files": located, "format": wanted, "delimiter": delimiter}, Path(scratch))
        except OSError as error:
            raise unavailable("blob_unavailable", "The bytes of a file cannot be read at the moment.", retry_after=30) from error
        finally:
            self._room.release()
        if "rejected" in answer:
            raise _refusal(answer["rejected"])
        return _CONTENT.validate_python(answer["content"])

    def _run(self, request: dict[str, Any], scratch: Path) -> dict[str, Any]:
        limits = {"memory_bytes": self.settings.memory_bytes, "seconds": self.settings.seconds}
        threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_IO_THREADS")}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "server.datasets.measure"],
                input=json.dumps(request | limits).encode(),
                capture_output=True,
                cwd=scratch,
                env={"PYTHONPATH": str(_ROOT), "PATH": "/usr/bin:/bin", "HOME": str(scratch), "LC_ALL": "C.UTF-8", **threads},
                timeout=self.settings.seconds + 5,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            return _rejected(f"Reading it takes longer than {self.settings.seconds} s.")
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            return _rejected("Reading it takes more memory or time than allowed, or breaks the reader.")
        return answer


def _rejected(message: str) -> dict[str, Any]:
    return {"rejected": {"code": "dataset_rejected", "message": message, "path": None, "line": None}}


def _locate(store: BlobStore, file: BlobFile, scratch: Path) -> Path:
    """The file on this machine, fetched when it lives in a bucket."""
    if (local := store.backend.local(file.sha256)) is not None:
        return local
    path = scratch / file.sha256
    if not path.exists():
        with path.open("xb") as out:
            for piece in store.read(file.sha256, 0, file.bytes):
                out.write(piece)
    return path


def _refusal(rejected: dict[str, Any]) -> Refusal:
    """The answer, naming file and line."""
    path, line = rejected["path"], rejected["line"]
    where = "".join((f"{path}" if path else "", f", line {line}" if line else ""))
    finding = Finding(pointer="/files", code=rejected["code"].replace("_", "-"), message=rejected["message"], hint=where or None)
    status = 415 if rejected["code"] == "format_not_allowed" else 422
    return problem(
        status, rejected["code"], f"{where}: {rejected['message']}" if where else rejected["message"], errors=[finding]
    )
