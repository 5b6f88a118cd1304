"""`--require`: conditions on final metrics. Written here, weighed by the server, so that every client gets one verdict."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from stoker.cli.failure import Failure
from stoker.cli.terminal import say
from stoker.cli.words import measure
from stoker.client import Client
from stoker.views import JobView, VerdictView

EXPRESSION = re.compile(
    r"\s*[a-z]+/[A-Za-z0-9_@.-]{1,96}\s*(>=|<=|==|>|<)\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?\s*", re.ASCII
)
Require = Annotated[
    list[str] | None,
    typer.Option("--require", metavar="KEY>=VALUE", help="Exit 3 unless the final metric passes; repeatable; implies --wait."),
]


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


def tell(verdict: VerdictView | None) -> None:
    """One line per gate, on stderr."""
    for gate in verdict.gates if verdict else ():
        value = "missing" if gate.value is None else measure(gate.value)
        say(f"  {'pass' if gate.passed else 'FAIL'}  {gate.expression}  (is {value})")
