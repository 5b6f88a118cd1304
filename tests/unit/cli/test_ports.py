"""Two stacks of one machine never choose one port, however close together they start."""

import socket
import subprocess
import sys

from stoker.cli.stack.process import free_port

HOLD = """
import sys
from stoker.cli.stack.process import free_port
port, claim = free_port(int(sys.argv[1]))
print(port, flush=True)
sys.stdin.read()
"""


def test_a_port_that_another_stack_chose_is_left_to_it() -> None:
    """It does not listen yet, so that nothing but its claim tells."""
    first, claim = free_port(None)
    with claim:
        command = [sys.executable, "-c", HOLD, str(first)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            second = int(other.stdout.readline())
            assert second != first
            mine, again = free_port(second)
            again.close()
            assert mine != second
            other.communicate()
        mine, again = free_port(second)  # whoever ends gives its claim back
        again.close()
        assert mine == second


def test_a_port_that_somebody_listens_at_is_not_chosen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, claim = free_port(taken.getsockname()[1])
        claim.close()
        assert port != taken.getsockname()[1]
    port, claim = free_port(taken_port := port)
    claim.close()
    assert port == taken_port
