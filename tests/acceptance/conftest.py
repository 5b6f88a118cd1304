"""Installations: one that is shared by all processes of the run, and one per database for tests that need all of its worker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.data import digits_csv, upload
from tests.support.installation import running
from tests.support.shared import folder_of_run, shared
from tests.support.stack import Stack


@pytest.fixture(scope="session")
def everybodys(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A server and two workers with room for four ranks each. Its tests are kept apart by projects or by names."""
    address = shared(folder_of_run(tmp_path_factory), "installation", "tests.support.installation:kept")
    return Stack(**address | {"home": Path(address["home"])})


@pytest.fixture(scope="module")
def installation(everybodys: Stack, request: pytest.FixtureRequest) -> Stack:
    """That installation, in a project that only the tests of this file use."""
    return everybodys.in_project(request.path.stem.removeprefix("test_"))


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server and one worker with room for two ranks, which belong to the test while it runs."""
    home: Path = tmp_path_factory.mktemp(f"stack-{request.param}")
    url = f"sqlite:///{home}/stoker.db" if request.param == "sqlite" else request.getfixturevalue("postgres").create_database()
    with running(Stack(home, url)) as stack:
        upload(stack, "digits", {"digits.csv": digits_csv()})
        yield stack
