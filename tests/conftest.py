"""What every test shares."""

import os

# Before torch is imported, here and in what tests start: threads that wait for work by spinning take the cores from those that
# have some. Four copies of a file of tests on two cores took 124 s spinning and 20 s asleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

pytest_plugins = ["tests.support.thorough", "tests.support.order", "tests.support.postgres", "tests.support.scoreboard"]
