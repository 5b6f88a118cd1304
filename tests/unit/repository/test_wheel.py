"""The wheel carries the client, the server, the worker and the demo, and claims no name in site-packages but `stoker`."""

import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.built import Built, build
from tests.support.stack import ROOT

PLANES = "stoker/_planes/"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def names(built: Built) -> set[str]:
    with zipfile.ZipFile(built.wheel) as wheel:
        return set(wheel.namelist())


def tracked(*folders: str) -> set[str]:
    """Files of the checkout that belong to these folders."""
    files = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}


def test_site_packages_gets_one_name(names: set[str]) -> None:
    assert {name.split("/")[0] for name in names} == {"stoker", f"stoker-{version('stoker')}.dist-info"}


def test_every_file_of_both_planes_and_of_the_package_is_in_it(names: set[str]) -> None:
    planes = {name.removeprefix(PLANES) for name in names if name.startswith(PLANES)}
    demo = {f"examples/{name}" for name in ("demo_data.py", "demo_use.py", "digits.yaml", "kjv_gpt.yaml")}
    assert planes == tracked("server", "worker", "migrations") | demo | {"alembic.ini"}
    package = {name for name in names if name.startswith("stoker/") and not name.startswith(PLANES)}
    assert package == tracked("stoker")


def test_the_sdist_builds_the_same_wheel_as_it_lists(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        files = {member.name.split("/", 1)[1] for member in archive if member.isfile()}
    assert files >= tracked("stoker", "server", "worker", "migrations") | {"setup.py", "pyproject.toml", "LICENSE", "README.md"}
    assert not any(name.startswith("tests/") for name in files)


def test_metadata_names_license_extras_and_a_light_base(built: Built, names: set[str]) -> None:
    info = f"stoker-{version('stoker')}.dist-info"
    assert f"{info}/licenses/LICENSE" in names
    with zipfile.ZipFile(built.wheel) as wheel:
        meta = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    assert meta["License-Expression"] == "Apache-2.0"
    assert set(meta.get_all("Provides-Extra") or ()) == {"client", "server", "worker", "local", "dev"}
    base = {line.split(">")[0].split("<")[0] for line in meta.get_all("Requires-Dist") or () if "extra ==" not in line}
    assert base == {"pydantic", "httpx", "ruamel.yaml", "typer", "rich"}


def test_the_registry_would_take_both(built: Built) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", str(built.sdist), str(built.wheel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_build_without_a_plane_is_refused(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    (source / "worker").rename(tmp_path / "gone")
    code = "from setuptools import build_meta; build_meta.build_wheel('out')"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "worker is missing" in done.stderr
