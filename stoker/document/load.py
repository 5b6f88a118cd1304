"""Documents from files and texts: YAML 1.2, TOML or JSON, with positions; `extends` and overrides composed."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, assert_never, get_args

from stoker.document import compose as _compose
from stoker.document.compose import Fetch
from stoker.document.describe import kind_of
from stoker.document.document import Document, Place, Source, Span
from stoker.document.messages import TEXT_CODES, finding
from stoker.document.read_json import json_places, read_json
from stoker.document.read_toml import read_toml, toml_places
from stoker.document.read_yaml import read_yaml
from stoker.document.rejected import Rejected
from stoker.document.report import render, report
from stoker.document.strict_json import JsonValue, strings
from stoker.errors import ConfigError, Finding, SpecError
from stoker.i18n import Lang, translated

Format = Literal["yaml", "json", "toml"]
MAX_BYTES: Mapping[Format, int] = {"yaml": 64 * 1024, "toml": 64 * 1024, "json": 1024 * 1024}
"""Largest text of each format; the YAML and TOML parsers are slow, and people write those by hand."""

_SUFFIXES: Mapping[str, Format] = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml"}


def load_file(path: str | Path, *, lang: Lang = "en") -> Document:
    """The document in a file, by its suffix. Raises ConfigError when it cannot be read, SpecError when it is not a document."""
    path = Path(path)
    form = _SUFFIXES.get(path.suffix.lower())
    if form is None:
        raise ConfigError(f"{path}: unknown kind of file; a spec ends in {', '.join(_SUFFIXES)}")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES[form] + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    return load_text(data, form, name=str(path), base=path.parent, lang=lang)


def load_text(
    text: str | bytes, format: Format = "yaml", *, name: str = "job", base: Path | None = None, lang: Lang = "en"
) -> Document:
    """The document in a text. `base` is the folder that `extends: ./file` starts from; without it files are refused.

    Raises SpecError.
    """
    assert format in get_args(Format)
    try:
        decoded = _decoded(text, MAX_BYTES[format], lang)
        value = _read(decoded, format)
        _check_strings(value)
    except Rejected as error:
        raise _refused(error, text, name, lang) from None
    source = Source(name, decoded, _locator(format))
    if not isinstance(value, dict):
        found = [finding("not-a-mapping", "", lang, given=kind_of(value, lang))]
        raise SpecError(found, render(found, Document({}, (source,))))
    return Document(value, (source,), base=base)


def compose(document: Document, overrides: Sequence[str] = (), fetch: Fetch | None = None, *, lang: Lang = "en") -> Document:
    """The document with all that it extends below it and the overrides above; `fetch` finds the document of `job:ID`.

    Raises SpecError, ConfigError for a file that cannot be read.
    """
    return _compose.compose(document, overrides, fetch, open_file=lambda path: load_file(path, lang=lang), lang=lang)


def _decoded(text: str | bytes, limit: int, lang: Lang) -> str:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(data) > limit:
        raise Rejected("too-large", finding("too-large", "", lang, limit=limit).message)
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise Rejected("bom", "the text starts with a byte order mark; save it as UTF-8 without one")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Rejected("not-utf8", f"byte {error.start} is not valid UTF-8", line) from None


def _read(text: str, format: Format) -> JsonValue:
    match format:
        case "yaml":
            return read_yaml(text)[0]
        case "json":
            return read_json(text)
        case "toml":
            return read_toml(text)
        case _:
            assert_never(format)


def _locator(format: Format) -> Callable[[str], Mapping[str, Place]]:
    match format:
        case "yaml":
            return lambda text: read_yaml(text)[1]
        case "json":
            return json_places
        case "toml":
            return toml_places
        case _:
            assert_never(format)


def _check_strings(value: JsonValue) -> None:
    for text in strings(value):
        if "\0" in text:
            raise Rejected("nul", "a string holds the character U+0000")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise Rejected("invalid-unicode", "a string holds half of a surrogate pair")


def _refused(error: Rejected, text: str | bytes, name: str, lang: Lang) -> SpecError:
    readable = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    place = Place(Span(error.line, error.column, error.length))
    message = error.detail if lang == "en" or error.code not in TEXT_CODES else translated(TEXT_CODES[error.code], lang)
    found = [Finding(code=error.code, message=message)]
    return SpecError(found, render(found, Document({}, (Source(name, readable, lambda _: {"": place}),))))


__all__ = ["MAX_BYTES", "Document", "Fetch", "Format", "compose", "load_file", "load_text", "render", "report"]
