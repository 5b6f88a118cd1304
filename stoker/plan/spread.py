"""What spreading a run over ranks costs each of them in memory, beside model and data."""

from typing import assert_never

from stoker.spec.distributed import DDP, Distributed, LocalSGD, Single

MIB = 1 << 20
LOCAL_BUCKET_BYTES = 32 * MIB
"""Portions in which ranks that learn apart exchange their weights."""


def communication_bytes(spec: Distributed, weights: int) -> int:
    """Buffers for what ranks tell one another in a step."""
    match spec:
        case Single():
            return 0
        case DDP():
            return min(spec.bucket_cap_mb * MIB, weights)
        case LocalSGD():
            return min(LOCAL_BUCKET_BYTES, weights)
        case _:
            assert_never(spec)


def apart_bytes(spec: Distributed, weights: int, optimizer: int) -> int:
    """On rank 0 while ranks that learn apart are saved: its own weights beside the mean, and everybody's, with their moments."""
    match spec:
        case LocalSGD(sync_every=every, average_optimizer_state=shared):
            differ, moments = every > 1, every > 1 or not shared
            return (weights if differ else 0) + spec.world_size * (differ * weights + moments * optimizer)
        case _:
            return 0
