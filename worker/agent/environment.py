"""The environment of a rank: torchrun's contract, and of the worker's own only what a program may need.

Keys and addresses of the server and the broker are left out: a trainer has no use for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stoker.protocol import Rendezvous

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
    "OMP_",
    "GOMP_",
    "XDG_",
    "SSL_",
    "PJRT_",
    "TPU_",
    "XLA_",
)


@dataclass(frozen=True)
class Share:
    """The ranks of one node among those of all nodes, each of which runs as many."""

    ranks: int
    """Of this node."""
    meeting: Rendezvous
    """Where all ranks find each other."""
    node: int = 0
    nodes: int = 1
    interface: str | None = None
    """Network interface through which nodes talk; None leaves it to the libraries."""

    @property
    def numbers(self) -> range:
        """This node's ranks by number."""
        return range(self.node * self.ranks, (self.node + 1) * self.ranks)


def rank_environments(share: Share, cpus: int, gpus: Sequence[int], base: Mapping[str, str]) -> list[dict[str, str]]:
    """One environment per rank. Threads per rank depend on the reservation alone, so that sums add up in the same order."""
    shared = {k: v for k, v in base.items() if k in _KEEP or k.startswith(_KEEP_PREFIXES)}
    shared |= {
        "WORLD_SIZE": str(share.ranks * share.nodes),
        "LOCAL_WORLD_SIZE": str(share.ranks),
        "GROUP_RANK": str(share.node),
        "GROUP_WORLD_SIZE": str(share.nodes),
        "MASTER_ADDR": share.meeting.address,
        "MASTER_PORT": str(share.meeting.port),
        "OMP_NUM_THREADS": str(max(1, cpus // share.ranks)),
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    if share.interface is not None:
        # What an operator set on the worker counts; the libraries' own guess goes by the host's name, which need not resolve.
        shared = {"GLOO_SOCKET_IFNAME": share.interface, "NCCL_SOCKET_IFNAME": f"={share.interface}", **shared}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(local)} for local, rank in enumerate(share.numbers)]
