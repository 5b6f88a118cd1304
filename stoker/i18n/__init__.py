"""Sentences in other languages, keyed by the English sentence, so that a changed sentence loses its translation loudly."""

import json
from functools import cache
from importlib.resources import files
from typing import Literal

Lang = Literal["en", "zh"]
LANGUAGES: tuple[Lang, ...] = ("en", "zh")


@cache
def sentences(lang: Lang) -> dict[str, str]:
    """English sentence → the same in another language; empty for English."""
    if lang == "en":
        return {}
    text = files(__package__).joinpath(f"{lang}.json").read_text(encoding="utf-8")
    made: dict[str, str] = json.loads(text)
    return made


def translated(sentence: str, lang: Lang) -> str:
    """The sentence in a language, or in English where it is not translated."""
    return sentences(lang).get(sentence, sentence)


def language(tag: str | None) -> Lang:
    """The supported language of a tag such as `zh_CN.UTF-8`; English for all others."""
    return "zh" if tag and tag.lower().startswith("zh") else "en"
