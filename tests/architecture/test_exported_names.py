"""`__all__` of a package is sorted, names what exists, and leaves out nothing that the package imports to show."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FACES = sorted(
    path.parent.relative_to(ROOT).as_posix().replace("/", ".")
    for plane in ("stoker", "server", "worker")
    for path in (ROOT / plane).rglob("__init__.py")
)


def complaints(source: str, exists: set[str]) -> list[str]:
    """What is wrong with the names that an `__init__.py` shows; `exists` holds those the imported package has."""
    tree = ast.parse(source)
    listed = _listed(tree)
    shown = _shown(tree)
    if listed is None:
        return [f"{name} is imported but there is no __all__" for name in sorted(shown)]
    found = (
        []
        if listed in (sorted(set(listed)), sorted(set(listed), key=_by_kind))
        else ["__all__ is not sorted, or names something twice"]
    )
    found += [f"{name} is in __all__ but does not exist" for name in listed if name not in exists]
    found += [f"{name} is imported but not in __all__" for name in sorted(shown - set(listed))]
    return found


def _by_kind(name: str) -> tuple[int, str]:
    """Constants, classes, functions: the order of ruff."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def _listed(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            value = node.value  # type: ignore[union-attr]  # only the two kinds of assignment get here
            return list(ast.literal_eval(value)) if value is not None else []
    return None


def _shown(tree: ast.Module) -> set[str]:
    """Public names imported from the three planes that the file does not use itself: they are there to be shown."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    planes = [node for node in imports if (node.module or "").split(".")[0] in ("stoker", "server", "worker")]
    names = {alias.asname or alias.name for node in planes for alias in node.names}
    return {name for name in names - used if not name.startswith("_")}


@pytest.mark.parametrize("package", FACES)
def test_exported_names(package: str) -> None:
    path = ROOT / package.replace(".", "/") / "__init__.py"
    listed = _listed(ast.parse(path.read_text()))
    module = importlib.import_module(package) if listed is not None else None
    exists = {name for name in listed or () if hasattr(module, name)}
    assert complaints(path.read_text(), exists) == []


def test_wrong_lists_are_reported() -> None:
    source = 'from stoker.spec import JobSpec\nfrom os import path\n__all__ = ["b", "a"]\n'
    assert complaints(source, {"a", "b"}) == [
        "__all__ is not sorted, or names something twice",
        "JobSpec is imported but not in __all__",
    ]
    assert complaints('__all__ = ["gone"]\n', set()) == ["gone is in __all__ but does not exist"]
    assert complaints("from stoker.spec import JobSpec\n", {"JobSpec"}) == ["JobSpec is imported but there is no __all__"]
