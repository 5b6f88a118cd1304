"""The wheel alone, in a new environment and an empty folder: from `stoker up` to a verified model, and the demo.

Nothing of the checkout is within reach: no editable install, no PYTHONPATH, another working directory.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.built import Built, build
from tests.support.stack import ROOT

pytestmark = [pytest.mark.timeout(1800), pytest.mark.thorough("installs the wheel in new environments and trains with it")]
UV = Path(sys.executable).with_name("uv")


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and the empty folder in which its commands run."""

    env: Path
    home: Path

    @property
    def site(self) -> Path:
        (site,) = self.env.glob("lib/python3*/site-packages")
        return site

    def run(self, program: str, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        path = f"{self.env / 'bin'}:/usr/bin:/bin"
        env = {"PATH": path, "HOME": str(self.home), "LC_ALL": "C.UTF-8"}
        command = [str(self.env / "bin" / program), *arguments]
        return subprocess.run(command, cwd=self.home, env=env, capture_output=True, text=True, timeout=timeout)

    def stoker(self, *arguments: str, timeout: float = 300) -> str:
        """What the command prints, on either stream."""
        done = self.run("stoker", *arguments, timeout=timeout)
        assert done.returncode == 0, f"stoker {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


def install(built: Built, folder: Path, extra: str) -> Installed:
    """A new environment with the wheel, from what is cached; from the registry where that is not enough."""
    made = Installed(folder / "env", folder / "empty")
    made.home.mkdir(parents=True)
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, str(made.env)], check=True, timeout=60)
    links = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"], capture_output=True, text=True, check=False
    ).stdout.strip()
    env = {**os.environ, **({"UV_FIND_LINKS": links} if links and "UV_FIND_LINKS" not in os.environ else {})}
    command = [UV, "pip", "install", "-q", "--compile-bytecode", "-c", str(ROOT / "constraints.txt")]
    command += ["--python", str(made.env / "bin/python"), f"stoker{extra} @ {built.wheel.as_uri()}"]
    if subprocess.run([*command, "--offline"], env=env, cwd=folder, capture_output=True, timeout=600).returncode:
        subprocess.run(command, env=env, cwd=folder, check=True, timeout=900)
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture
def local(built: Built, tmp_path: Path) -> Iterator[Installed]:
    made = install(built, tmp_path, "[local]")
    yield made
    made.run("stoker", "up", "--stop")
    made.run("stoker", "up", "--state-dir", ".stoker/demo", "--stop")


def write_blobs(path: Path) -> None:
    """Three clouds of points in a plane, one per class."""
    draw = random.Random(0)
    rows = [f"{draw.gauss(2 * k, 0.5):.4f},{draw.gauss(-k, 0.5):.4f},{k}" for _ in range(100) for k in range(3)]
    path.write_text("\n".join(["x,y,label", *rows]) + "\n")


def test_a_job_from_upload_to_download_and_the_demo(local: Installed) -> None:
    assert not {"server", "worker", "migrations", "tests"} & {path.name for path in local.site.iterdir()}
    assert not [path for path in local.site.glob("*.pth") if str(ROOT) in path.read_text()]
    local.stoker("up", "--detach")
    assert_children_are_installed(local)
    write_blobs(local.home / "points.csv")
    local.stoker("datasets", "upload", "points", "points.csv")
    local.stoker("init", "--dataset", "points")
    local.stoker("submit", "job.yaml", "--wait", "--require", "test/accuracy>=0.9")
    assert "verified" in local.stoker("download", "@last", "--to", "model")
    assert {"manifest.json", "model.safetensors", "spec.json"} <= {path.name for path in (local.home / "model").iterdir()}
    assert "stopped" in local.stoker("up", "--stop")
    said = local.stoker("demo", timeout=1200)
    assert "downloaded and verified" in said
    assert "held-out digits named right" in said


def assert_children_are_installed(local: Installed) -> None:
    """Server and worker were started with the folder of the wheel on their path, and import from there."""
    planes = local.site / "stoker" / "_planes"
    children = json.loads(local.stoker("up", "--status", "--json"))["children"]
    for name in ("server", "worker"):
        environment = Path(f"/proc/{children[name]['pid']}/environ").read_bytes().split(b"\0")
        assert f"PYTHONPATH={planes}".encode() in environment
    code = "import os, sys; sys.path.insert(0, sys.argv[1]); import server, stoker, worker; "
    code += "print(os.path.commonpath([server.__file__, stoker.__file__, worker.__file__]))"
    assert local.run("python", "-P", "-c", code, str(planes)).stdout.strip() == str(local.site / "stoker")


def test_each_plane_runs_by_itself(local: Installed) -> None:
    assert "create-key" in local.stoker("server", "--help")
    key = local.run("stoker", "server", "create-key", "--name", "w", "--scopes", "worker")
    assert (key.returncode, "stk_" in key.stdout) == (0, True), key.stderr
    bare = local.run("stoker", "worker")
    assert bare.returncode == 2, "a worker without a key says so and ends"
    assert "STOKER_KEY is not set" in bare.stderr


def test_without_extras_it_is_a_light_client(built: Built, tmp_path: Path) -> None:
    light = install(built, tmp_path, "[client]")
    there = {path.name for path in light.site.iterdir()}
    assert not there & {"torch", "numpy", "fastapi", "sqlalchemy", "celery", "redis", "pyarrow"}
    light.stoker("init")
    assert "valid" in light.stoker("validate", "job.yaml", "--offline")
    assert "beta1" in light.stoker("explain", "optimizer.beta1")
    for command, extra in (("up", "local"), ("server", "server"), ("demo", "local")):
        refused = light.run("stoker", command)
        assert refused.returncode == 2, command
        assert f"pip install 'stoker[{extra}]'" in refused.stderr, command
