"""The environment of a rank: torchrun's contract, and of the worker's own only what a program may need.

Keys and addresses of the server and the broker are left out: a trainer has no use for them.
"""

import os
import random
import socket
from collections.abc import Mapping, Sequence

_KEEP = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"}
)
_KEEP_PREFIXES = (
    "LC_",
    "PYTHON",
    "CUDA_",
    "NVIDIA_",
    "NCCL_",
    "GLOO_",
    "TORCH",
    "PYTORCH_",
    "MKL_",
    "KMP_",
    "GOMP_",
    "XDG_",
    "SSL_",
)
_PORTS = range(20_000, 32_000)
"""Below the range from which Linux draws ports of outgoing connections, so that none takes the port in between."""


def rank_environments(world_size: int, cpus: int, gpus: Sequence[int], base: Mapping[str, str]) -> list[dict[str, str]]:
    """One environment per rank. Threads per rank depend on the reservation alone, so that sums add up in the same order."""
    shared = {k: v for k, v in base.items() if k in _KEEP or k.startswith(_KEEP_PREFIXES)}
    shared |= {
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": str(max(1, cpus // world_size)),
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world_size)]


def free_port() -> int:
    """A port nobody listens on now. Raises OSError when a hundred tries find none."""
    draw = random.Random(os.urandom(8))
    for _ in range(100):
        port = draw.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port for the ranks' rendezvous")
