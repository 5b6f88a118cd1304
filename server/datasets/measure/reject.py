"""What is said of a data set that is not taken."""

from typing import NoReturn


class Rejected(Exception):
    """A file that cannot be a data set. Never quotes what the file holds."""

    def __init__(self, code: str, message: str, path: str | None = None, line: int | None = None) -> None:
        self.code, self.message, self.path, self.line = code, message, path, line
        super().__init__(message)


def reject(message: str, path: str | None = None, line: int | None = None) -> NoReturn:
    """The file has a format that is known, and is damaged or beyond a limit. `line` counts from 1."""
    raise Rejected("dataset_rejected", message, path, line)


def forbid(message: str, path: str) -> NoReturn:
    """The file has a format that could run code or that Stoker does not read."""
    raise Rejected("format_not_allowed", message, path)
