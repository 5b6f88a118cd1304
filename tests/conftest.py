"""What every test shares."""

import os
from pathlib import Path

import pytest

# Before torch is imported, here and in what tests start: threads that wait for work by spinning take the cores from those that
# have some. Four copies of a file of tests on two cores took 124 s spinning and 20 s asleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

pytest_plugins = ["tests.support.postgres", "tests.support.scoreboard"]
ROOT = Path(__file__).parent
APART = ("unit",)
"""Folders whose tests share nothing that is slow to make."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one file share fixtures, whole installations among them: a file is run by one worker, unless it says otherwise."""
    for item in items:
        file = item.path.relative_to(ROOT)
        if file.parts[0] not in APART and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(file.as_posix()))
