"""Writes `stoker/client/_sync.py` from `stoker/client/_async.py`: the same methods without `async` and `await`.

python tools/sync_client.py            rewrite the file
python tools/sync_client.py --check    fail where it differs from what would be written
"""

import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

HOME = Path(__file__).parents[1]
SOURCE = HOME / "stoker/client/_async.py"
TARGET = HOME / "stoker/client/_sync.py"
HEADER = '"""The synchronous client, written by `make sync-client` from `_async.py`: change that file, not this one."""'
NAMES = {
    "async": "",
    "await": "",
    "AsyncClient": "Client",
    "AsyncIterator": "Iterator",
    "AsyncTransport": "Transport",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "aclose": "close",
    "aiter_bytes": "iter_bytes",
    "asyncio": "time",  # both have `sleep`, the one function that the client calls
}
"""Words of the asynchronous client and what stands in their place."""
TIDY = ("check", "--fix-only", "--unsafe-fixes", "--select", "I001,UP028")
"""Sorts the imports, and writes `yield from`, which an asynchronous generator does not have."""


def synchronous(source: str) -> str:
    """The text of the module for a synchronous client, formatted."""
    lines = source.splitlines(keepends=True)
    for row, start, end, text in reversed(list(_edits(source))):
        line = lines[row - 1]
        lines[row - 1] = line[:start] + text + line[end:].removeprefix(" " if not text else "")
    text = "".join(lines)
    return _ruff(_ruff(HEADER + text[text.index("\n") :], *TIDY), "format")


def _edits(source: str) -> Iterator[tuple[int, int, int, str]]:
    """Row, first and last column of each name to replace, and what replaces it."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and token.string in NAMES:
            yield token.start[0], token.start[1], token.end[1], NAMES[token.string]


def _ruff(text: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "ruff", *arguments, "--quiet", "--stdin-filename", str(TARGET), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=HOME).stdout


def main(arguments: list[str]) -> int:
    made = synchronous(SOURCE.read_text(encoding="utf-8"))
    if arguments == ["--check"]:
        current = TARGET.read_text(encoding="utf-8") == made
        print(f"{TARGET.relative_to(HOME)}: {'current' if current else 'differs from _async.py; run make sync-client'}")
        return 0 if current else 1
    TARGET.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
