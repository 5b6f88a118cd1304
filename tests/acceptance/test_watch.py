"""A watcher on a bad line: every event once, in order, and the end."""

import threading

from stoker import Client
from tests.support.data import digits_job
from tests.support.proxy import Proxy
from tests.support.stack import Stack


def test_a_watcher_cut_every_second_misses_nothing(stack: Stack) -> None:
    job = stack.submit(digits_job(training={"max_steps": 1500, "batch_size": 48, "gradient_accumulation_steps": 2}))
    done = threading.Event()
    with Proxy(stack.port) as proxy, Client(proxy.url, stack.key("read,submit,admin")) as client:

        def scissors() -> None:
            while not done.wait(1.0):
                proxy.cut()

        cutter = threading.Thread(target=scissors)
        cutter.start()
        try:
            seen = list(client.watch(job))
        finally:
            done.set()
            cutter.join()
        assert proxy.accepted >= 3
    log = stack.get(f"/v1/jobs/{job}/events", limit=500)["data"]
    assert [(e.seq, e.type) for e in seen] == [(e["seq"], e["type"]) for e in log]
    assert [e.seq for e in seen] == list(range(1, len(seen) + 1))
    assert (seen[-1].type, seen[-1].data["state"]) == ("end", "succeeded")
