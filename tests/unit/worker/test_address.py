"""Where a node says it is, and through which interface."""

import socket
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from server.scheduler import network_of
from worker.host.address import advertised, interface_of, rendezvous_at
from worker.settings import WorkerSettings


def settings(**more: Any) -> WorkerSettings:
    return WorkerSettings(key=SecretStr("k"), state_dir=Path("/nowhere"), **more)


def test_the_operators_word_counts_first() -> None:
    assert advertised(settings(worker_address="node-7.example", url="http://127.0.0.1:1")) == "node-7.example"
    with pytest.raises(ValidationError):
        settings(worker_address="not an address")


def test_else_the_address_from_which_the_server_is_reached() -> None:
    assert advertised(settings(url="http://127.0.0.1:7071")) == "127.0.0.1"
    assert advertised(settings(url="http://no-such-host.invalid:7071")) == ""


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_loopback_is_an_interface_too(address: str) -> None:
    assert interface_of(address) == "lo"


def test_no_interface_has_a_foreign_address() -> None:
    assert interface_of("192.0.2.1") is None, "TEST-NET-1 is nobody's"
    assert interface_of("no-such-host.invalid") is None


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "192.0.2.1"])
def test_ranks_meet_where_nobody_listens(address: str) -> None:
    place = rendezvous_at(address)
    assert place.address == address
    with socket.socket() as probe:
        probe.bind(("", place.port))


def test_workers_reach_each_other_over_a_network_or_on_one_machine() -> None:
    assert network_of("10.0.0.1", "a") == network_of("node.example", "b") == network_of("fd00::1", "c")
    assert network_of("127.0.0.1", "a") == network_of("127.0.0.2", "a") == network_of("localhost", "a") == network_of("::1", "a")
    assert network_of("127.0.0.1", "a") != network_of("127.0.0.1", "b"), "two machines"
    assert network_of("127.0.0.1", "a") != network_of("10.0.0.1", "a")
    assert network_of("", "a") == ""
