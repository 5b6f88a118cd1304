"""Ready-made documents for `extends: preset:NAME`, one YAML file each; the first comment line says what it is."""

from functools import cache
from importlib.resources import files

from stoker.document.document import Document, Source
from stoker.document.read_yaml import read_yaml


@cache
def presets() -> dict[str, str]:
    """Name → one sentence, sorted by name."""
    found = {}
    for file in sorted(files(__package__).iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".yaml"):
            found[file.name.removesuffix(".yaml")] = file.read_text(encoding="utf-8").split("\n")[0].removeprefix("#").strip()
    return found


@cache
def preset(name: str) -> Document | None:
    """The document of a preset, or None when there is none of that name."""
    if name not in presets():
        return None
    text = files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    value, places = read_yaml(text)
    return Document(value, (Source(f"preset:{name}", text, lambda _: places, f"preset:{name}"),))
