"""Names that a library marks as private are imported in one place, so that an upgrade knows where to look."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACES = {
    "worker/trainer/runtime/compat.py": "everything of PyTorch",
    "worker/trainer/interpretability/attribution.py": "captum, which takes seconds to import and is loaded by runs that explain",
    "stoker/cli/completion.py": "typer's completion script, which is loaded when a shell asks for it",
}
"""Files that may import private names, and whose."""
OURS = ("stoker", "server", "worker", "__future__")


def private(source: str) -> list[str]:
    """Imports of private modules and names of other people's packages."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] not in OURS:
            found += [f"{node.module}.{a.name}" for a in node.names if _hidden(f"{node.module}.{a.name}")]
        elif isinstance(node, ast.Import):
            found += [a.name for a in node.names if _hidden(a.name)]
    return found


def _hidden(name: str) -> bool:
    return any(part.startswith("_") and not part.endswith("__") for part in name.split("."))


def test_private_names_are_imported_in_one_place() -> None:
    files = [path for plane in ("stoker", "server", "worker") for path in (ROOT / plane).rglob("*.py")]
    found = {str(f.relative_to(ROOT)): names for f in files if (names := private(f.read_text()))}
    assert set(found) == set(PLACES), found


def test_a_private_name_is_reported() -> None:
    source = "from torch.nn import _x\nfrom torch._y import z\nimport os\nfrom os import path\nfrom stoker.client import _sync\n"
    assert private(source) == ["torch.nn._x", "torch._y.z"]
