"""The import contracts of pyproject.toml hold, and each of them fails when the tree breaks it."""

import importlib
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PLANES = ("stoker", "server", "worker")

VIOLATIONS = {
    "planes": ("server/paging.py", "import worker.settings"),
    "public-face": ("stoker/status.py", "import sqlalchemy"),
    "server-no-torch": ("server/paging.py", "import torch"),
    "trainer-is-a-program": ("worker/trainer/runtime/journal.py", "import httpx"),
    "worker-no-database": ("worker/host/records.py", "import sqlalchemy"),
    "agent-no-torch": ("worker/agent/__init__.py", "import worker.trainer.runtime.world"),
    "families": ("worker/trainer/optimizer/lion.py", "import worker.trainer.schedule"),
    "trainer-layers": ("worker/trainer/runtime/world.py", "import worker.trainer.loop"),
    "server-layers": ("server/errors.py", "import server.app"),
    "server-tables": ("server/jobs/tables.py", "import server.jobs.store"),
    "server-stores": ("server/jobs/store.py", "import server.jobs.service"),
    "server-services": ("server/jobs/service.py", "import server.jobs.routes"),
    "acyclic": ("stoker/spec/derived/arithmetic.py", "import stoker.plan"),
    "stoker-layers": ("stoker/unplaced.py", "X = 1"),
}
"""Contract → a file of the tree and a line in it that breaks the contract."""


def verdicts(root: Path) -> tuple[set[str], set[str]]:
    """Ids of the contracts that a tree keeps, and of those that it breaks."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    environment = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "COLUMNS": "1000"}
    command = [Path(sys.executable).parent / "lint-imports", "--no-logo", "--no-cache"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment, timeout=250)
    lines = set(done.stdout.splitlines())
    names = {contract["id"]: contract["name"] for contract in settings["contracts"]}
    kept = {identity for identity, name in names.items() if f"{name} KEPT" in lines}
    failed = {identity for identity, name in names.items() if f"{name} BROKEN" in lines}
    assert kept | failed == names.keys(), done.stdout + done.stderr
    return kept, failed


def cycles(graph: grimp.ImportGraph) -> list[list[str]]:
    """Modules that reach themselves through their imports, each cycle sorted: what is left when leaves are taken away from both ends."""
    left = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    while True:
        sinks = {module for module, imports in left.items() if not imports & left.keys()}
        sources = left.keys() - {name for imports in left.values() for name in imports}
        if not sinks | sources:
            break
        left = {module: imports for module, imports in left.items() if module not in sinks | sources}
    return [sorted(left)] if left else []


def test_contracts_hold() -> None:
    kept, failed = verdicts(ROOT)
    assert failed == set()
    assert kept == set(VIOLATIONS)


def test_each_contract_fails_when_it_is_broken(tmp_path: Path) -> None:
    for plane in PLANES:
        shutil.copytree(ROOT / plane, tmp_path / plane, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file, line in VIOLATIONS.values():
        path = tmp_path / file
        path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")
    kept, failed = verdicts(tmp_path)
    assert kept == set()
    assert failed == set(VIOLATIONS)


def test_no_module_imports_itself_through_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    assert cycles(grimp.build_graph(*PLANES, cache_dir=None)) == []


def test_a_cycle_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "looped_sample"
    package.mkdir()
    for name, line in {
        "__init__": "",
        "a": "import looped_sample.b",
        "b": "import looped_sample.c",
        "c": "from looped_sample import a",
    }.items():
        (package / f"{name}.py").write_text(line + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    assert cycles(grimp.build_graph("looped_sample", cache_dir=None)) == [
        ["looped_sample.a", "looped_sample.b", "looped_sample.c"]
    ]
