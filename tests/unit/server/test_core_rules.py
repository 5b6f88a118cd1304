"""Small rules of the server: what it refuses to start with, when it believes silence, how gates are read."""

from pathlib import Path

import pytest

from server.auth import Principal, attempt_token, digest, key_of
from server.errors import Refusal
from server.jobs import gates
from server.reaper import Watchman
from server.settings import Settings
from stoker.timers import TimerSettings


def test_a_wildcard_needs_a_proxy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="behind-proxy"):
        Settings(state_dir=tmp_path, host="0.0.0.0").check()
    Settings(state_dir=tmp_path, host="0.0.0.0", behind_proxy=True).check()


def test_sqlite_serves_one_process(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SQLite"):
        Settings(state_dir=tmp_path, processes=2).check()
    Settings(state_dir=tmp_path, processes=2, database_url="postgresql+psycopg://h/d").check()


def test_a_pepper_that_others_may_read_is_refused(tmp_path: Path) -> None:
    assert len(Settings(state_dir=tmp_path).pepper) == 32
    assert (tmp_path / "pepper").stat().st_mode & 0o777 == 0o600
    (tmp_path / "pepper").chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        _ = Settings(state_dir=tmp_path).pepper
    (tmp_path / "pepper").chmod(0o600)
    (tmp_path / "pepper").write_bytes(b"short")
    with pytest.raises(ValueError, match="fewer than 32"):
        _ = Settings(state_dir=tmp_path).pepper


def test_timers_that_would_let_two_attempts_run_are_refused(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    settings.__dict__["timers"] = TimerSettings(lease=200)
    with pytest.raises(ValueError, match="lease"):
        settings.check()


def test_keys_are_long_and_of_their_id_alone() -> None:
    key, prefix = key_of(b"p" * 32, "key_1")
    assert key.startswith(f"stk_{prefix}_")
    assert len(key) == 4 + 8 + 1 + 43
    assert key_of(b"p" * 32, "key_2")[0] != key
    assert key_of(b"q" * 32, "key_1")[0] != key
    assert digest(b"p" * 32, key) != digest(b"q" * 32, key)
    assert attempt_token(b"p" * 32, "att_a", "agent-1") != attempt_token(b"p" * 32, "att_a", "agent-2")


@pytest.mark.parametrize(
    ("scopes", "may", "may_not"),
    [
        ({"read"}, {"read"}, {"submit", "admin", "worker"}),
        ({"submit"}, {"read", "submit"}, {"admin", "worker"}),
        ({"admin"}, {"read", "submit", "admin"}, {"worker"}),
        ({"worker"}, {"worker"}, {"read", "submit", "admin"}),
    ],
)
def test_scopes_imply_only_what_is_below_them(scopes: set[str], may: set[str], may_not: set[str]) -> None:
    who = Principal("k", "k", None, frozenset(scopes))
    assert {s for s in may | may_not if who.may(s)} == may


class Clocks:
    def __init__(self) -> None:
        self.monotonic, self.wall = 1000.0, 5000.0

    def pass_(self, seconds: float, wall: float | None = None) -> None:
        self.monotonic += seconds
        self.wall += seconds if wall is None else wall


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def watchman(clocks: Clocks) -> Watchman:
    return Watchman(TimerSettings(), lambda: clocks.monotonic, lambda: clocks.wall)


def test_after_a_start_nothing_is_reaped_for_a_lease(clocks: Clocks) -> None:
    watching = watchman(clocks)
    for _ in range(59):
        clocks.pass_(5)
        assert watching.look() == 0
        assert not watching.may_reap
    clocks.pass_(5)
    watching.look()
    assert watching.may_reap


@pytest.mark.parametrize("jump", [7200.0, -7200.0])
def test_a_clock_that_jumps_moves_leases_and_brings_amnesty(clocks: Clocks, jump: float) -> None:
    watching = watchman(clocks)
    for _ in range(61):
        clocks.pass_(5)
        watching.look()
    assert watching.may_reap
    clocks.pass_(5, wall=5 + jump)
    assert watching.look() == pytest.approx(jump)
    assert not watching.may_reap
    clocks.pass_(5)
    assert watching.look() == 0


def test_a_process_that_slept_has_heard_nothing(clocks: Clocks) -> None:
    watching = watchman(clocks)
    for _ in range(61):
        clocks.pass_(5)
        watching.look()
    clocks.pass_(120)
    watching.look()
    assert not watching.may_reap


@pytest.mark.parametrize("text", ["validation/accuracy>=0.95", " train/loss < 1e-3 ", "test/f1_micro==1"])
def test_gates_that_can_be_read(text: str) -> None:
    assert gates.parse(text).expression == text.strip()


@pytest.mark.parametrize(
    "text", ["", "accuracy>=0.95", "validation/accuracy", "a/b>=nan", "a/b>=1e999", "a/b>=.", "a/b>=1;drop", "x" * 300]
)
def test_gates_that_cannot(text: str) -> None:
    with pytest.raises(Refusal, match="gate_invalid"):
        gates.parse(text)


def test_verdicts() -> None:
    metrics = {"a/x": 0.5, "a/n": "NaN", "a/i": "Infinity"}
    assert gates.verdict("j", "running", metrics, ["a/x>0"]).passed is None
    assert gates.verdict("j", "succeeded", metrics, ["a/x>0", "a/i>1"]).passed is True
    assert gates.verdict("j", "succeeded", metrics, ["a/n>=0"]).passed is False
    assert gates.verdict("j", "failed", metrics, []).passed is False
    assert gates.outcome("early_stopped", metrics, ["a/x>0"]) == "early_stopped"
    assert gates.outcome("completed", metrics, ["a/y>0"]) == "metrics_missing"
    assert gates.outcome("completed", metrics, ["a/x>1"]) == "gate_failed"
