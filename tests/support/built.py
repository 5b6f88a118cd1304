"""The sdist and the wheel of this checkout, built in a copy, as a build frontend would: sdist first, the wheel from it."""

import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.stack import ROOT

SOURCES = (
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
    "alembic.ini",
    "stoker",
    "server",
    "worker",
    "migrations",
    "examples",
)
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


@dataclass(frozen=True)
class Built:
    sdist: Path
    wheel: Path


def build(folder: Path) -> Built:
    """Both archives, in `folder`; nothing is written into the checkout."""
    copy, out = folder / "source", folder / "dist"
    out.mkdir(parents=True)
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            copy.mkdir(exist_ok=True)
            shutil.copy(source, copy / name)
    _run("build_sdist", copy, out)
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    _run("build_wheel", unpacked, out)
    (wheel,) = out.glob("*.whl")
    return Built(sdist, wheel)


def _run(step: str, source: Path, out: Path) -> None:
    """In a process, because the backend works in the current directory and keeps what it read."""
    done = subprocess.run([sys.executable, "-c", BUILD, step, str(out)], cwd=source, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
