"""Time that also passes while the process is stopped or the machine sleeps."""

import time


def now() -> float:
    """Seconds since boot; never set back (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
