"""Libraries that are installed but not wanted: to whoever asks during an import they are not there."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, DistributionFinder, PackageNotFoundError
from types import ModuleType


class _Absent(MetaPathFinder):
    """Answers for some top-level names before anybody else can, as if nothing were installed under them."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

    def find_distributions(self, context: DistributionFinder.Context) -> Iterator[Distribution]:
        if context.name in self._names:
            raise PackageNotFoundError(context.name)
        return iter(())


@contextmanager
def absent(*names: str) -> Iterator[None]:
    """While this lasts imports do not find these packages, whose modules and distributions have one name each.

    For libraries that import what they can find, whether it will be used or not. A package that is imported already stays
    there whole: whoever finds it will want the rest of it.
    """
    finder = _Absent(tuple(name for name in names if name not in sys.modules))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
