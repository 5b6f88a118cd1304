"""How fast does one client download a large blob, beside http.server and a bare sendfile of the same file?"""

import functools
import hashlib
import http.server
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from server.blobs import service  # noqa: E402
from tests.integration.server_data.conftest import serving  # noqa: E402

SIZE, REPEATS = 512 << 20, 3


def _fetch(port: int, path: str, headers: str) -> float:
    """MB/s of one GET read from a raw socket."""
    buffer = bytearray(1 << 20)
    began, got = time.perf_counter(), 0
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Connection: close\r\n\r\n".encode())
        while size := raw.recv_into(buffer):
            got += size
    assert got > SIZE, got
    return got / 1e6 / (time.perf_counter() - began)


def fetch(port: int, path: str, headers: str = "") -> float:
    """The best of some tries, from another process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return max(pool.apply(_fetch, (port, path, headers)) for _ in range(REPEATS))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def python_server(folder: Path, name: str) -> float:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        speed = fetch(server.server_address[1], f"/{name}")
        server.shutdown()
    return speed


def bare_sendfile(path: Path) -> float:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(REPEATS):
                connection, _ = listener.accept()
                with connection, path.open("rb") as file:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    connection.sendfile(file)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        return fetch(listener.getsockname()[1], "/")


def main() -> None:
    with tempfile.TemporaryDirectory() as home, serving(Path(home), f"sqlite:///{home}/s.db", "sqlite") as server:
        block = os.urandom(1 << 20)
        digest = hashlib.sha256()
        source = Path(home) / "source"
        with source.open("wb") as out:
            for _ in range(SIZE >> 20):
                out.write(block)
                digest.update(block)
        sha = digest.hexdigest()
        server.runtime.blobs.backend.adopt(source, sha)
        server.db.write_now(lambda s: service.stored(s, "default", sha, SIZE, quota=1 << 60))
        path = server.runtime.blobs.backend.local(sha)
        key = f"Authorization: Bearer {server.key()}\r\n"
        port = int(server.url.rpartition(":")[2])
        ours = fetch(port, f"/v1/blobs/{sha}", key)
        floors = {"http_server": python_server(path.parent, path.name), "sendfile": bare_sendfile(path)}
    ratios = {f"of_{name}": round(ours / speed, 2) for name, speed in floors.items()}
    print(json.dumps({"mb_per_second": round(ours)} | {k: round(v) for k, v in floors.items()} | ratios))


if __name__ == "__main__":
    main()
