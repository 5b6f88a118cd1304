"""`--require`: conditions on final metrics. Written here, weighed by the server, so that every client gets one verdict."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stoker.cli.failure import Failure
from stoker.client import Client
from stoker.views import JobView, VerdictView

EXPRESSION = re.compile(
    r"\s*[a-z]+/[A-Za-z0-9_@.-]{1,96}\s*(>=|<=|==|>|<)\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?\s*", re.ASCII
)


@dataclass(frozen=True)
class Gates:
    expressions: tuple[str, ...]

    @classmethod
    def parse(cls, texts: Sequence[str]) -> "Gates":
        """Raises Failure for one that is not a condition: before the job is submitted, not after it has run."""
        for text in texts:
            if not EXPRESSION.fullmatch(text):
                raise Failure(
                    f"not a condition: {text!r}", "write KEY OP NUMBER, for example 'validation/accuracy>=0.95'", code=2
                )
        return cls(tuple("".join(text.split()) for text in texts))

    def judge(self, client: Client, job: JobView) -> VerdictView | None:
        """The server's verdict; None without conditions."""
        return client.verdict(job.id, self.expressions) if self.expressions else None
