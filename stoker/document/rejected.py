"""What a reader raises when a text is not a document at all: nothing in it can be validated."""

MAX_WRITTEN = 5_000
"""Most values in a text that people write by hand, YAML or TOML; their parsers are slow."""


class Rejected(Exception):
    """`detail` never quotes the input. Line and column count from 1."""

    def __init__(self, code: str, detail: str, line: int = 1, column: int = 1, length: int = 1) -> None:
        self.code = code
        self.detail = detail
        self.line = line
        self.column = column
        self.length = length
        super().__init__(detail)
