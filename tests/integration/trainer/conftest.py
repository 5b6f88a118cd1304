"""One warm interpreter for all runs of this folder, and the runs that others are compared with."""

import os
from collections.abc import Iterator

import pytest

from tests.support.same_runs import Alone
from tests.support.trainer_runs import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def alone(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """In a folder that the processes of a test run share."""
    base = tmp_path_factory.getbasetemp()
    return Alone(nursery, (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "alone")
