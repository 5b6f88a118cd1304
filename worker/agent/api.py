"""The server as an agent sees it: one method per route of `stoker.protocol`, and four ways an answer may fail.

ApiFailure
├── Unreachable    no answer, or one that says to come back: try again
├── Stale          409 stale_attempt: the attempt is another's now; kill the ranks and leave
├── Behind         the server knows less than was assumed: frames missing, or an upload's offset
└── Refused        the request will never be accepted
"""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from stoker.frames import MEDIA_TYPE
from stoker.protocol import Claim, ClaimReply, Finish, FinishReply, ReportReply

CHUNK = 1 << 20
Reply = TypeVar("Reply", bound=BaseModel)


class ApiFailure(Exception):
    pass


class Unreachable(ApiFailure):
    pass


class Stale(ApiFailure):
    pass


class Behind(ApiFailure):
    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


class Refused(ApiFailure):
    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Stored:
    """What the server has of a blob."""

    complete: bool
    offset: int


class ServerApi:
    """One connection pool to the server; `timeout` seconds bound each wait for it."""

    def __init__(self, url: str, credential: str, timeout: float, epoch: int | None = None) -> None:
        headers = {"Authorization": f"Bearer {credential}", "User-Agent": "stoker-agent"}
        if epoch is not None:
            headers["Stoker-Epoch"] = str(epoch)
        # A full context loads every root certificate (30 ms); plain HTTP never looks at it.
        tls = ssl.create_default_context() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._client = httpx.Client(base_url=url, headers=headers, timeout=timeout, verify=tls, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def claim(self, attempt_id: str, claim: Claim) -> ClaimReply:
        return self._json("POST", f"/v1/attempts/{attempt_id}/claim", claim, ClaimReply)

    def report(self, attempt_id: str, body: bytes) -> ReportReply:
        answer = self._send("POST", f"/v1/attempts/{attempt_id}/report", content=body, headers={"Content-Type": MEDIA_TYPE})
        return _parse(ReportReply, answer)

    def finish(self, attempt_id: str, finish: Finish) -> FinishReply:
        return self._json("POST", f"/v1/attempts/{attempt_id}/finish", finish, FinishReply)

    def stored(self, sha256: str) -> Stored:
        """What the server already has of a blob."""
        answer = self._send("HEAD", f"/v1/blobs/{sha256}", missing_ok=True)
        if answer.status_code == 404:
            offset = answer.headers.get("Upload-Offset", "0")
            return Stored(False, int(offset) if offset.isdecimal() else 0)
        return Stored(True, 0)

    def put(self, sha256: str, source: BinaryIO, size: int, offset: int) -> None:
        """Sends a blob's bytes from an offset on. Raises Behind with the server's offset when that is another."""
        source.seek(offset)
        headers = {"Content-Length": str(size - offset), "Content-Type": "application/octet-stream"}
        if offset:
            headers["Upload-Offset"] = str(offset)
        self._send("PUT", f"/v1/blobs/{sha256}", content=_chunks(source, size - offset), headers=headers)

    def download(self, sha256: str, target: BinaryIO, offset: int) -> Iterator[int]:
        """Appends a blob's bytes from an offset on to a file; yields the size of each piece."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            with self._client.stream("GET", f"/v1/blobs/{sha256}", headers=headers) as answer:
                if answer.is_error:
                    answer.read()
                    _raise(answer)
                if offset and answer.status_code != 206:
                    target.seek(0)
                    target.truncate()
                for piece in answer.iter_raw(CHUNK):
                    target.write(piece)
                    yield len(piece)
        except httpx.TransportError as error:
            raise Unreachable(f"GET blob: {error!r}") from error

    def _json(self, method: str, path: str, body: BaseModel, reply: type[Reply]) -> Reply:
        answer = self._send(method, path, content=body.model_dump_json().encode(), headers={"Content-Type": "application/json"})
        return _parse(reply, answer)

    def _send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        missing_ok: bool = False,
    ) -> httpx.Response:
        try:
            answer = self._client.request(method, path, content=content, headers=headers)
        except httpx.TransportError as error:
            raise Unreachable(f"{method} {path}: {error!r}") from error
        if answer.is_error and not (missing_ok and answer.status_code == 404):
            _raise(answer)
        return answer


def _chunks(source: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0:
        piece = source.read(min(CHUNK, size))
        if not piece:
            raise Refused("the file is shorter than its manifest says", 0, "truncated")
        size -= len(piece)
        yield piece


def _parse(kind: type[Reply], answer: httpx.Response) -> Reply:
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as error:
        # A proxy's page or a foreign version; the server behind it may come back.
        raise Unreachable(f"unreadable answer: {error.error_count()} errors in {kind.__name__}") from error


def _raise(answer: httpx.Response) -> NoReturn:
    """Turns an error answer into the failure it stands for."""
    code, detail = _problem(answer)
    text = f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {code} {detail}"[:500]
    status = answer.status_code
    if status == 409 and code == "upload_offset":
        offset = answer.headers.get("Upload-Offset", "0")
        raise Behind(text, int(offset) if offset.isdecimal() else 0)
    if status == 409 and code == "frames_missing":
        raise Behind(text)
    if status == 409:
        raise Stale(text)
    # 401 and 403 may be a server whose keys are not loaded yet: silence, not permission to go on past the lease.
    if status >= 500 or status in (401, 403, 408, 425, 429):
        raise Unreachable(text)
    raise Refused(text, status, code)


def _problem(answer: httpx.Response) -> tuple[str, str]:
    try:
        body = answer.json()
    except ValueError:
        return "", ""
    if not isinstance(body, dict):
        return "", ""
    return str(body.get("code", "")), str(body.get("detail", ""))
