"""Token buckets against the number that arithmetic gives."""

from contextlib import suppress

import pytest

from server.errors import Refusal
from server.rates import Rates


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def taken(rates: Rates, key: str, tries: int) -> int:
    count = 0
    for _ in range(tries):
        with suppress(Refusal):
            rates.take(key)
            count += 1
    return count


def test_a_burst_then_the_rate_for_each_key_apart() -> None:
    clock = Clock()
    rates = Rates(2.0, 10, clock)
    assert taken(rates, "a", 50) == 10
    assert taken(rates, "b", 3) == 3
    clock.now = 3.0
    assert taken(rates, "a", 50) == 6
    clock.now = 1000.0
    assert taken(rates, "a", 50) == 10


def test_what_is_remembered_is_bounded() -> None:
    clock = Clock()
    rates = Rates(1.0, 2, clock)
    for number in range(30_000):
        clock.now += 0.001
        rates.take(f"key{number}")
    assert len(rates._buckets) <= 10_000


def test_retry_after_is_when_the_next_token_comes() -> None:
    rates = Rates(0.1, 1, Clock())
    rates.take("a")
    with pytest.raises(Refusal) as refused:
        rates.take("a")
    assert (refused.value.status, refused.value.code) == (429, "rate_limited")
    assert 10 <= int(refused.value.headers["Retry-After"]) <= 11
