"""Packages that tests compare with, imported when they are first used.

Every test process collects every file and runs some: what scikit-learn, SciPy and transformers take to import is spent only
where a test needs them.
"""

import importlib
from typing import Any


class Late:
    """A module by its name: `stats = Late("scipy.stats")` is used as the module is."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_") or attribute == "pytestmark":  # pytest looks for these while it collects
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)
