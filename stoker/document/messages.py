"""What each kind of grammar error says. The key is the published code of the finding."""

from dataclasses import dataclass

from stoker.errors import Finding
from stoker.i18n import Lang, translated


@dataclass(frozen=True)
class Message:
    """Templates with `{name}` holes; `hint` says what to do."""

    text: str
    hint: str | None = None


GRAMMAR: dict[str, Message] = {
    "unknown-key": Message("unknown key `{path}`", "remove it, or see `stoker explain {parent}`"),
    "misplaced-key": Message("unknown key `{path}`", "this key belongs in `{home}`"),
    "misspelled-key": Message("unknown key `{path}`", "did you mean `{guess}`?"),
    "missing": Message("`{path}` is required", "add `{key}`: {doc}"),
    "missing-type": Message("`{path}` does not say which kind it is", "add `{key}: …`, one of {choices}"),
    "wrong-type": Message("`{path}` must be {expected}, not {given}", None),
    "wrong-type-quoted": Message("`{path}` must be {expected}, not {given}", "remove the quotes"),
    "not-one-of": Message("`{path}` is {value}, which is not allowed here", "use one of {choices}"),
    "misspelled-value": Message("`{path}` is {value}, which is not allowed here", "did you mean `{guess}`?"),
    "out-of-range": Message("`{path}` is {value}; it must be {bound}", None),
    "wrong-length": Message("`{path}` has {given} entries; it must have {bound}", None),
    "wrong-text-length": Message("`{path}` has {given} characters; it must have {bound}", None),
    "wrong-pattern": Message(
        "`{path}` does not have the form {pattern}", "use letters, digits and . _ - only, and start with a letter or digit"
    ),
    "one-duration": Message(
        "`{path}` must set exactly one of steps, epochs, tokens, seconds", "keep one of them, for example {{epochs: 1}}"
    ),
    "invalid": Message("`{path}` does not fit: {reason}", None),
    "not-a-mapping": Message("a spec is a mapping of keys, not {given}", "start with `task:`, `model:`, `data:` and `training:`"),
    "unknown-version": Message("api_version {value} is not known here", "use one of {choices}"),
    "too-large": Message("the document is larger than {limit} bytes", "move data into a data set"),
    "extends-unknown": Message("`extends` names nothing that exists: {reason}", "use preset:NAME, ./file or job:ID"),
    "extends-loop": Message("`extends` leads back to itself or through more than {limit} documents", "make the chain shorter"),
    "override-syntax": Message("an override must be PATH=VALUE", "for example optimizer.lr=1e-3"),
    "override-path": Message(
        "override path `{path}` leads through {given}, not a mapping or a list", "check the path with `stoker explain`"
    ),
    "override-index": Message(
        "override path `{path}` names entry {index} of a list of {length}", "use an index from 0 to {last}"
    ),
}
"""Codes ending in -quoted, or misspelled and misplaced, are told to users under their plain code, see `PLAIN`."""

REASONS = {
    "text": "it must be text",
    "preset": "the presets are {known}",
    "server": "jobs can only be looked up through a server",
    "job": "there is no such job in this project",
    "file": "files can only be extended by a file",
    "path": "the path is not a path",
    "json": "it holds a value that JSON cannot hold",
}
"""What fills `{reason}`."""

PLAIN = {
    "misplaced-key": "unknown-key",
    "misspelled-key": "unknown-key",
    "wrong-type-quoted": "wrong-type",
    "misspelled-value": "not-one-of",
    "missing-type": "missing",
    "wrong-text-length": "wrong-length",
}
"""Variants of a message → the code that is published."""

TEXT_CODES = {
    "json-invalid": "The text is not JSON.",
    "json-not-utf8": "The text is not UTF-8.",
    "json-bom": "The text starts with a byte order mark.",
    "json-too-deep": "Arrays and objects are nested too deeply.",
    "json-too-many-values": "There are too many values.",
    "json-duplicate-key": "An object holds the same key twice.",
    "json-non-finite": "NaN and Infinity are not JSON.",
    "json-number-out-of-range": "A number does not fit 64 bits.",
    "json-nul": "A string holds U+0000.",
    "json-invalid-unicode": "A string holds half of a surrogate pair.",
    "yaml-invalid": "The text is not YAML.",
    "yaml-documents": "The file holds several YAML documents.",
    "yaml-alias": "YAML anchors and aliases are refused.",
    "yaml-tag": "YAML tags are refused.",
    "yaml-merge-key": "YAML merge keys are refused.",
    "yaml-key": "A YAML key is not a plain word.",
    "toml-invalid": "The text is not TOML.",
    "toml-date": "No field takes a date.",
    "duplicate-key": "The same key stands twice in one mapping.",
    "non-finite": "NaN and infinity are refused.",
    "number-out-of-range": "A number does not fit 64 bits.",
    "too-deep": "Mappings and lists are nested too deeply.",
    "too-many-values": "There are too many values.",
    "nul": "A string holds U+0000.",
    "invalid-unicode": "A string holds half of a surrogate pair.",
    "not-utf8": "The file is not UTF-8.",
    "bom": "The text starts with a byte order mark.",
}
"""Codes of texts that are no documents at all, with what they mean."""


def finding(kind: str, pointer: str, lang: Lang, *, allowed: tuple[str, ...] | None = None, **holes: object) -> Finding:
    """A grammar finding in a language. `kind` is a key of GRAMMAR."""
    message = GRAMMAR[kind]
    hint = None if message.hint is None else translated(message.hint, lang).format(**holes)
    return Finding(
        pointer=pointer,
        code=PLAIN.get(kind, kind),
        message=translated(message.text, lang).format(**holes),
        hint=hint,
        allowed=allowed,
    )


def reason(kind: str, lang: Lang, **holes: str) -> str:
    """One of REASONS in a language."""
    return translated(REASONS[kind], lang).format(**holes)
