"""One warm interpreter for all runs of this folder."""

from collections.abc import Iterator

import pytest

from tests.support.trainer_runs import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()
