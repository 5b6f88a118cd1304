"""What ranks are told, on one node and on several: torchrun's contract."""

import pytest

from stoker.protocol import Rendezvous
from worker.agent.environment import Share, rank_environments

RENDEZVOUS = Rendezvous(address="10.0.0.1", port=21_000)
PATH = {"PATH": "/bin", "STOKER_KEY": "secret", "AWS_SECRET_ACCESS_KEY": "secret"}
NUMBERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE")


def numbers(environment: dict[str, str]) -> tuple[int, ...]:
    return tuple(int(environment[name]) for name in NUMBERS)


def test_ranks_of_all_nodes_are_numbered_once() -> None:
    shares = [Share(2, RENDEZVOUS, node, 3, "eth0") for node in range(3)]
    told = [numbers(e) for share in shares for e in rank_environments(share, cpus=4, gpus=(), base=PATH)]
    assert told == [
        (0, 0, 6, 2, 0, 3),
        (1, 1, 6, 2, 0, 3),
        (2, 0, 6, 2, 1, 3),
        (3, 1, 6, 2, 1, 3),
        (4, 0, 6, 2, 2, 3),
        (5, 1, 6, 2, 2, 3),
    ]


def test_one_node_has_all_ranks() -> None:
    assert [numbers(e) for e in rank_environments(Share(2, RENDEZVOUS), 2, (), PATH)] == [(0, 0, 2, 2, 0, 1), (1, 1, 2, 2, 0, 1)]


@pytest.mark.proves("DIST-08")
def test_a_rank_gets_the_devices_reserved_for_it_and_no_secret() -> None:
    (told,) = rank_environments(Share(1, RENDEZVOUS), cpus=4, gpus=(3, 5), base=PATH)
    assert (told["CUDA_VISIBLE_DEVICES"], told["OMP_NUM_THREADS"]) == ("3,5", "4")
    assert (told["MASTER_ADDR"], told["MASTER_PORT"], told["PATH"]) == ("10.0.0.1", "21000", "/bin")
    assert "secret" not in told.values()


@pytest.mark.parametrize(("base", "gloo"), [({}, "eth0"), ({"GLOO_SOCKET_IFNAME": "ib0"}, "ib0")])
def test_nodes_talk_through_the_interface_of_their_address_unless_the_operator_chose(base: dict[str, str], gloo: str) -> None:
    (told,) = rank_environments(Share(1, RENDEZVOUS, 1, 2, "eth0"), 1, (), base)
    assert (told["GLOO_SOCKET_IFNAME"], told["NCCL_SOCKET_IFNAME"]) == (gloo, "=eth0")
    (alone,) = rank_environments(Share(1, RENDEZVOUS), 1, (), {})
    assert "GLOO_SOCKET_IFNAME" not in alone
