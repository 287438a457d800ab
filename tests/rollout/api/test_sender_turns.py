"""Each gateway has its share of the controller's time, whatever the others send."""

import asyncio

import pytest

from rollout.api import sender_turns
from rollout.api.sender_turns import WAITING_BYTES_MAX, SenderTurns
from rollout.errors import SenderRefusedError

MEBIBYTE = 2**20


def test_gateway_beyond_its_share_waits_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of 1 MiB costs 31 ms, which are paid for in four times as long."""
    monkeypatch.setattr(sender_turns, "BURST_NS", 0)

    async def walk() -> None:
        turns = SenderTurns()
        async with turns.turn("flood", MEBIBYTE) as waited_s:
            assert waited_s < 0.1
        async with turns.turn("other", MEBIBYTE) as waited_s:
            assert waited_s < 0.1
        async with turns.turn("flood", 1) as waited_s:
            assert waited_s > 0.1

    asyncio.run(walk())


def test_gateway_may_use_a_burst_at_once() -> None:
    """After an outage it sends what has waited, 16 MiB here, in one go."""

    async def walk() -> None:
        turns = SenderTurns()
        for _ in range(16):
            async with turns.turn("g", MEBIBYTE) as waited_s:
                assert waited_s < 0.1

    asyncio.run(walk())


def test_streams_of_one_gateway_take_turns_and_their_messages_are_bounded() -> None:
    """While one message is processed, others of the gateway wait, up to a number of bytes."""

    async def walk() -> None:
        turns, first_ends = SenderTurns(), asyncio.Event()
        order = []

        async def send(name: str) -> None:
            async with turns.turn("g", WAITING_BYTES_MAX // 2):
                order.append(name)
                if name == "first":
                    await first_ends.wait()

        first = asyncio.ensure_future(send("first"))
        second = asyncio.ensure_future(send("second"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(SenderRefusedError, match="bytes of gateway 'g' wait"):
            await send("third")
        assert order == ["first"]
        second.cancel()
        first_ends.set()
        await first
        await asyncio.gather(second, return_exceptions=True)
        assert order == ["first"]

    asyncio.run(walk())
