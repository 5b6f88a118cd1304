"""Output of ranks: stored raw, read as clean lines in the order of arrival."""

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import select
from sqlmodel import Session, col

from server.attempts.tables import Attempt
from server.db import utcnow
from server.errors import not_found, problem
from server.jobs.tables import Job
from server.logs import store
from server.logs.lines import Assembler, readable
from server.logs.rows import LogRow
from server.logs.store import Filter, Place
from stoker.frames import Frame
from stoker.views import LogChunkView

START: Place = (-1, 0)
BATCH = 16
"""Chunks read at a time; a chunk is 4 MiB at most, as a rule far less."""
TAIL_BYTES = 64 << 20
"""How far back `tail` looks."""


def ingest(session: Session, job: Job, attempt: Attempt, frame: Frame) -> None:
    """Store a chunk. The caller has checked that the frame is the attempt's next. Raises 422 `frame_invalid`."""
    rank, stream, offset = (frame.header.get(name) for name in ("rank", "stream", "offset"))
    if type(rank) is not int or not 0 <= rank < 2**20 or stream not in ("out", "err"):
        raise problem(422, "frame_invalid", "A log chunk names a rank and the stream out or err.")
    if type(offset) is not int or not 0 <= offset <= 2**53:
        raise problem(422, "frame_invalid", "A log chunk names its offset in bytes.")
    seq = frame.seq if attempt.nodes == 1 else store.last_seq(session, job.id, attempt.epoch) + 1
    values = {"job_id": job.id, "epoch": attempt.epoch, "seq": seq, "rank": rank, "stream": stream}
    store.add(session, {**values, "offset": offset, "data": frame.payload, "created_at": utcnow()})


def epoch_of(session: Session, job_id: str, number: int) -> int:
    """Epoch of a job's attempt by its number. Raises 404."""
    query = select(col(Attempt.epoch)).where(col(Attempt.job_id) == job_id, col(Attempt.number) == number)
    epoch = session.scalar(query.order_by(col(Attempt.epoch).desc()).limit(1))
    if epoch is None:
        raise not_found()
    return int(epoch)


def numbers(session: Session, job_id: str) -> dict[int, int]:
    """Attempt number by epoch."""
    query = select(col(Attempt.epoch), col(Attempt.number)).where(col(Attempt.job_id) == job_id)
    return {epoch: number for epoch, number in session.execute(query)}


class Reader:
    """Chunks in, lines of text out. With several ranks each line says whose it is."""

    def __init__(self, *, label: bool, grep: str | None, partial_start: bool = False) -> None:
        self._label, self._grep, self._partial = label, grep, partial_start
        self._streams: dict[tuple[int, int, str], Assembler] = {}

    def feed(self, chunks: Iterable[LogRow]) -> Iterator[str]:
        for chunk in chunks:
            key = (chunk.epoch, chunk.rank, chunk.stream)
            if key not in self._streams:
                self._streams[key] = Assembler(skip_first=self._partial and chunk.offset > 0)
            for line in self._streams[key].feed(chunk.offset, chunk.data):
                yield from self._shown(chunk.rank, line)

    def flush(self) -> Iterator[str]:
        """Lines that never ended."""
        for (_, rank, _), assembler in self._streams.items():
            for line in assembler.flush():
                yield from self._shown(rank, line)

    def _shown(self, rank: int, line: bytes) -> Iterator[str]:
        text = readable(line)
        if self._grep is None or self._grep in text:
            yield f"[{rank}] {text}" if self._label else text


def tail(session: Session, wanted: Filter, lines: int, grep: str | None) -> tuple[list[str], Place]:
    """The last lines and the place after which further ones come. Reads from the end, no further than it must."""
    label = wanted.rank is None and store.ranks(session, wanted) > 1
    chunks: list[LogRow] = []
    while True:
        more = max(BATCH, len(chunks))  # twice as far each time, so that the work stays in proportion
        batch = store.before(session, wanted, (chunks[-1].epoch, chunks[-1].seq) if chunks else None, more)
        chunks.extend(batch)
        reader = Reader(label=label, grep=grep, partial_start=len(batch) == more)
        shown = [*reader.feed(reversed(chunks)), *reader.flush()]
        if len(shown) > lines or len(batch) < more or sum(len(c.data) for c in chunks) > TAIL_BYTES:
            place = (chunks[0].epoch, chunks[0].seq) if chunks else START
            return shown[max(0, len(shown) - lines) :], place


def views(rows: Sequence[LogRow], attempts: dict[int, int]) -> list[LogChunkView]:
    """Chunks as JSON, each readable by itself."""
    return [
        LogChunkView(rank=r.rank, stream=r.stream, attempt=attempts.get(r.epoch, 0), offset=r.offset, text=_text(r.data))
        for r in rows
    ]


def _text(data: bytes) -> str:
    return "\n".join(readable(line) for line in data.split(b"\n"))
