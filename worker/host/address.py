"""Where this node is on the network: the address it tells other nodes, and the interface that has it."""

import random
import socket
from ipaddress import ip_address
from os import urandom
from urllib.parse import urlsplit

import psutil

from stoker.protocol import Rendezvous
from worker.settings import WorkerSettings

_PORTS = range(20_000, 32_000)
"""Below the range from which Linux draws ports of outgoing connections, so that none takes the port in between."""
_TRIES = 100


def advertised(settings: WorkerSettings) -> str:
    """STOKER_WORKER_ADDRESS, else the address from which this node reaches the server; empty when there is no way to it."""
    if settings.worker_address is not None:
        return settings.worker_address
    server = urlsplit(settings.url)
    try:
        found = socket.getaddrinfo(server.hostname, server.port or 80, type=socket.SOCK_DGRAM)
        family, _, _, _, target = found[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # Nothing is sent: the kernel only looks up its routes.
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def interface_of(address: str) -> str | None:
    """Name of the network interface that has an address or a name's address; None when none has, as behind a translation.

    Any loopback address is that of `lo`: it has all of 127.0.0.0/8.
    """
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(address, None)}
    except OSError:
        return None
    local = any(ip_address(one).is_loopback for one in found)
    for name, own in psutil.net_if_addrs().items():
        for entry in own:
            if entry.address in found or (local and _is_loopback(entry.address)):
                return name
    return None


def _is_loopback(text: str) -> bool:
    try:
        return ip_address(text).is_loopback
    except ValueError:
        return False


def rendezvous_at(address: str) -> Rendezvous:
    """A place for ranks to meet: the address and a port there on which nobody listens now.

    Raises OSError when a hundred tries find none.
    """
    draw = random.Random(urandom(8))
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # An address that is not this machine's own is translated to it; rank 0 listens on all of them.
    bound = address if interface_of(address) is not None else ""
    for _ in range(_TRIES):
        port = draw.choice(_PORTS)
        with socket.socket(family) as probe:
            try:
                probe.bind((bound, port))
            except OSError:
                continue
            return Rendezvous(address=address, port=port)
    raise OSError(f"no free port for the ranks' rendezvous on {address}")
