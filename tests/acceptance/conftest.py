"""One whole installation per database and test session."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.data import digits_csv, upload
from tests.support.stack import Stack


@pytest.fixture(
    scope="session",
    params=[
        "sqlite",
        "postgresql",
    ],
)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home: Path = tmp_path_factory.mktemp(f"stack-{request.param}")
    url = f"sqlite:///{home}/stoker.db" if request.param == "sqlite" else request.getfixturevalue("postgres").create_database()
    stack = Stack(home, url)
    try:
        stack.start()
        upload(stack, "digits", {"digits.csv": digits_csv()})
        yield stack
    finally:
        stack.stop()
        _keep_logs(home)


def _keep_logs(home: Path) -> None:
    """Copy the logs of a failed session to where CI keeps them, when it says where."""
    if target := os.environ.get("STOKER_TEST_LOGS"):
        subprocess.run(["sh", "-c", f"mkdir -p {target}/{home.name} && cp {home}/*.log {target}/{home.name}/"], check=False)
