"""What does an idle installation cost: seconds to ready and resident memory of each part, with and without the warm interpreter?"""

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402

from tests.support.stack import Stack  # noqa: E402


def tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        stack = Stack(home, f"sqlite:///{home}/stoker.db")
        try:
            began = time.perf_counter()
            stack.start_broker()
            stack.start_server()
            print(f"broker and server ready (empty database, migrations included): {time.perf_counter() - began:.1f} s")
            stack.kill("server", 15)
            began = time.perf_counter()
            stack.start_server()
            print(f"server ready again: {time.perf_counter() - began:.1f} s")
            began = time.perf_counter()
            stack.start_worker()
            print(f"worker with a warm interpreter ready: {time.perf_counter() - began:.1f} s")
            time.sleep(3)
            total = 0
            for name in ("broker", "server", "node-1"):
                processes = [p for p in tree(stack.pid(name)) if "worker.warm" not in " ".join(p.cmdline())]
                used = sum(p.memory_full_info().uss for p in processes)
                total += used
                print(f"{name}: {used / 2**20:.0f} MiB unique, {len(processes)} processes")
            warm = [p for p in psutil.process_iter() if "worker.warm" in " ".join(p.cmdline()) and str(home) in str(p.environ())]
            print(f"server + worker + broker: {total / 2**20:.0f} MiB (goal 250)")
            print(f"warm interpreter beside them: {sum(p.memory_full_info().uss for p in warm) / 2**20:.0f} MiB")
        finally:
            stack.stop()


if __name__ == "__main__":
    main()
