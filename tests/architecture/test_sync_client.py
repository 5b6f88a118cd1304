"""The synchronous client is the one that the asynchronous one makes."""

import inspect

import pytest

from stoker.client import AsyncClient, Client
from tools.sync_client import SOURCE, TARGET, synchronous


def test_the_committed_client_is_current() -> None:
    assert TARGET.read_text(encoding="utf-8") == synchronous(SOURCE.read_text(encoding="utf-8")), "run make sync-client"


@pytest.mark.parametrize(
    ("asynchronous", "expected"),
    [
        ("async def f(x: T) -> T:\n    return await g(await h(x))\n", "def f(x: T) -> T:\n    return g(h(x))\n"),
        ("async with a as b:\n    await asyncio.sleep(1)\n", "with a as b:\n    time.sleep(1)\n"),
        ("text = 'await what is async'  # await\n", 'text = "await what is async"  # await\n'),
        (
            "async def f() -> AsyncIterator[int]:\n    async for x in g():\n        yield x\n",
            "def f() -> Iterator[int]:\n    yield from g()\n",
        ),
    ],
)
def test_words_are_replaced_in_code_and_in_code_only(asynchronous: str, expected: str) -> None:
    assert synchronous('"""Head."""\n' + asynchronous).split("\n", 1)[1].lstrip("\n") == expected


def test_both_clients_have_the_same_methods_and_parameters() -> None:
    ours = {name: member for name, member in vars(Client).items() if not name.startswith("_") and inspect.isfunction(member)}
    theirs = {name for name, member in vars(AsyncClient).items() if not name.startswith("_") and inspect.isfunction(member)}
    assert set(ours) == theirs
    for name, member in ours.items():
        assert list(inspect.signature(member).parameters) == list(inspect.signature(getattr(AsyncClient, name)).parameters), name
