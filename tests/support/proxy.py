"""A TCP proxy on loopback that breaks connections on command."""

import contextlib
import selectors
import socket
import struct
import threading
from types import TracebackType


class Proxy:
    """Forwards to a port until told otherwise.

    `cut()` resets every open connection; `refuse` and `swallow` (accept, then silence) hold until set back.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.refuse = False
        self.swallow = False
        self.accepted = 0
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for end in pair:
                reset(end)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self.refuse:
                reset(near)
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=2)
            except OSError:
                reset(near)
                continue
            far.settimeout(None)
            with self._lock:
                self._pairs.add((near, far))
            threading.Thread(target=self._pump, args=(near, far), daemon=True).start()

    def _pump(self, near: socket.socket, far: socket.socket) -> None:
        selector = selectors.DefaultSelector()
        with contextlib.suppress(OSError, ValueError, KeyError):
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            while True:
                for ready, _ in selector.select(timeout=1):
                    data = ready.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not data:
                        raise OSError("closed")
                    if not self.swallow:
                        ready.data.sendall(data)
        selector.close()
        with self._lock:
            self._pairs.discard((near, far))
        near.close()
        far.close()


def reset(end: socket.socket) -> None:
    """Close with RST, so that the other side sees an error and not an end."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()
