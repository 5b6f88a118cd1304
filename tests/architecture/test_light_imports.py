"""What a user waits for at every command stays light: no server, no tensors, and for help not even the models."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ("fastapi", "starlette", "uvicorn", "sqlmodel", "sqlalchemy", "celery", "redis", "prometheus_client")
TENSORS = ("torch", "numpy", "pyarrow", "safetensors", "tokenizers", "torchmetrics", "PIL", "sklearn")
HELP = "from stoker.cli.app import run; run(['--help'])"


def loaded(code: str, heavy: tuple[str, ...]) -> list[str]:
    """Which of the heavy packages a fresh interpreter has loaded after running the code."""
    tail = f"\nimport sys; sys.stderr.write('LOADED ' + ' '.join(m for m in {heavy!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code + tail], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    return done.stderr.rsplit("LOADED ", 1)[1].split()


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        pytest.param(HELP, (*SERVER, *TENSORS, "pydantic", "httpx", "ruamel.yaml"), id="help"),
        pytest.param("import stoker", (*SERVER, *TENSORS), id="stoker"),
        pytest.param("import stoker.spec, stoker.plan, stoker.events, stoker.views", (*SERVER, *TENSORS), id="contracts"),
        pytest.param("import worker.node.tasks", TENSORS, id="tasks"),
        pytest.param("import worker.agent.__main__", (*TENSORS, *SERVER), id="agent"),
        pytest.param("import server.app", ("torch", "worker", "transformers"), id="server"),
    ],
)
def test_light(code: str, heavy: tuple[str, ...]) -> None:
    assert loaded(code, heavy) == []


def test_a_heavy_import_is_reported() -> None:
    assert loaded("import sqlalchemy, numpy", (*SERVER, *TENSORS)) == ["sqlalchemy", "numpy"]
