"""Documents of older grammars become documents of this one, one function per version."""

from collections.abc import Callable, Mapping

from stoker.document.messages import finding
from stoker.document.strict_json import JsonValue
from stoker.errors import Finding, SpecError
from stoker.i18n import Lang
from stoker.text import shown

Upgrade = Callable[[dict[str, JsonValue]], dict[str, JsonValue]]

CURRENT = "stoker/v1"

UPGRADES: Mapping[str, tuple[str, Upgrade]] = {}
"""Old version → the next one and the function that leads there. `stoker/v1` is the first version, so there is none yet."""


def upgraded(
    value: dict[str, JsonValue],
    lang: Lang = "en",
    *,
    upgrades: Mapping[str, tuple[str, Upgrade]] = UPGRADES,
    current: str = CURRENT,
) -> dict[str, JsonValue]:
    """The document in the current grammar; a document without api_version is taken to be current.

    Raises SpecError, code unknown-version, when no chain leads from its version to the current one.
    """
    version = value.get("api_version", current)
    while version != current:
        if not isinstance(version, str) or version not in upgrades:
            raise SpecError([_unknown(version, (*upgrades, current), lang)])
        version, upgrade = upgrades[version]
        value = {**upgrade(dict(value)), "api_version": version}
    return value


def _unknown(version: JsonValue, known: tuple[str, ...], lang: Lang) -> Finding:
    choices = ", ".join(known)
    return finding("unknown-version", "/api_version", lang, allowed=known, value=shown(version), choices=choices)
