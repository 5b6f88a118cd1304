"""What the C library does with memory that is given back."""

import ctypes

MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of glibc's malloc.h."""
LARGE_BYTES = 1 << 20


def give_back_large_blocks() -> None:
    """From here on memory of large tensors goes back to the system when they are freed; where the C library is not glibc, nothing.

    glibc takes every block that was freed, up to 32 MiB, as a hint to keep blocks of that size for itself. Weights that are
    gathered, used and let go in ever other sizes leave holes there that no later block fits: measured, a rank of 217 MiB of
    weights grew to 1764 MiB where 946 were in use.
    """
    try:
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, LARGE_BYTES)
    except (AttributeError, OSError):
        return
