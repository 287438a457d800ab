"""The line between supervisor and worker: whole messages at any size, and nobody ever waits."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from gateway.supervision.channel import (
    FRAME_BYTES_MAX,
    ControlConnection,
    FrameDecoder,
    FrameError,
    Message,
    WorkerChannel,
    encode_frame,
)
from gateway.supervision.supervisor import rss_bytes
from tests.property_examples import examples

texts = st.dictionaries(st.text(max_size=5), st.text() | st.floats(allow_nan=False) | st.integers())


@examples(30)
@given(st.lists(texts, max_size=6), st.lists(st.integers(1, 30), min_size=1))
def test_messages_come_out_whole_however_the_bytes_were_cut(
    values: list[Message], cuts: list[int]
) -> None:
    """Any messages, any chunks: the same messages, in order."""
    messages = [
        {"type": "x", **{f"k{key}": value for key, value in item.items()}} for item in values
    ]
    sent = b"".join(map(encode_frame, messages))
    frames, heard, start = FrameDecoder(), [], 0
    for turn in range(len(sent)):
        size = cuts[turn % len(cuts)]
        heard += frames.feed(sent[start : start + size])
        start += size
    assert heard == messages


@pytest.mark.parametrize(
    ("arrives", "says"),
    [
        (struct.pack("<I", FRAME_BYTES_MAX + 1), f"{FRAME_BYTES_MAX} at most"),
        (struct.pack("<I", 3) + b"\xff{}", "is not JSON"),
        (struct.pack("<I", 4) + b"[1] ", "no object with a type"),
        (struct.pack("<I", 2) + b"{}", "no object with a type"),
    ],
)
def test_what_is_no_frame_of_ours_is_refused(arrives: bytes, says: str) -> None:
    """A length out of bounds, no JSON, no object, no type."""
    with pytest.raises(FrameError, match=says):
        FrameDecoder().feed(arrives)


def test_a_message_too_large_is_refused_where_it_is_made() -> None:
    """Its author finds out, not the other end."""
    with pytest.raises(FrameError, match="a metrics of"):
        encode_frame({"type": "metrics", "snapshot": "x" * FRAME_BYTES_MAX})


class Commander:
    """The supervisor's end, in a test's hands."""

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.line: ControlConnection

    def kinds(self) -> list[str]:
        """Types heard so far, heartbeats left out."""
        return [message["type"] for message in self.heard if message["type"] != "heartbeat"]

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for *holds*, 5 s at most."""
        deadline = time.monotonic() + 5
        while not holds():
            assert time.monotonic() < deadline, self.heard
            await asyncio.sleep(0.001)


Story = Callable[[Commander, WorkerChannel, list[str]], Awaitable[None]]


async def play(story: Story, *, reads: bool = True) -> list[str]:
    """Run *story* between a commander and a started worker; return what the worker did."""
    ours, theirs = socket.socketpair()
    commander, did = Commander(), list[str]()
    if reads:
        commander.line = await ControlConnection.attach(
            ours, commander.heard.append, lambda: did.append("lost")
        )
    channel = WorkerChannel(theirs.detach(), heartbeat_ms=2, metrics_ms=4, orphan_grace_s=7.0)

    async def on_serve(slot: int, port: int) -> None:
        did.append(f"serve {slot} {port}")
        if port == 13:
            raise OSError("port 13 is taken")

    async def on_drain(grace_s: float) -> None:
        did.append(f"drain {grace_s:g}")

    await channel.start(
        on_serve=on_serve,
        on_drain=on_drain,
        gauges=lambda: {"rows_inside": 3.0},
        snapshot=lambda: {"turnout_calls": []},
    )
    try:
        await story(commander, channel, did)
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not reads:
            ours.close()
    return did


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[list[str]]], list[str]]:
    """Both loops that a worker may turn on."""
    return asyncio.run if request.param == "asyncio" else uvloop.run  # type: ignore[return-value]


def test_a_workers_life_in_the_order_it_happens(
    run: Callable[[Awaitable[list[str]]], list[str]],
) -> None:
    """hello, ready, serve -> serving, drain -> draining, a last snapshot, the end."""

    async def story(commander: Commander, channel: WorkerChannel, did: list[str]) -> None:
        channel.announce_ready()
        commander.line.send({"type": "serve", "slot": 1, "port": 8500})
        await commander.until(lambda: "serving" in commander.kinds())
        await commander.until(lambda: len(commander.heard) > 12)
        commander.line.send({"type": "drain", "grace_s": 2.5})
        commander.line.send({"type": "drain", "grace_s": 9.0})
        await channel.wait_finished()
        await commander.until(lambda: "lost" in did)
        kinds = commander.kinds()
        assert kinds[0] == "hello"
        assert [k for k in kinds if k != "metrics"] == ["hello", "ready", "serving", "draining"]
        assert kinds[-1] == "metrics"
        beat = next(m for m in commander.heard if m["type"] == "heartbeat")
        assert beat["rows_inside"] == 3.0
        assert beat["loop_lag_ms"] >= 0

    assert run(play(story)) == ["serve 1 8500", "drain 2.5", "lost"]


def test_a_worker_whose_supervisor_is_gone_drains_itself(
    run: Callable[[Awaitable[list[str]]], list[str]],
) -> None:
    """The end of the line is an order to leave, once, with its own grace."""

    async def story(commander: Commander, channel: WorkerChannel, did: list[str]) -> None:
        commander.line.close()
        await channel.wait_finished()

    assert run(play(story)) == ["lost", "drain 7"]


def test_sigterm_drains_once_and_sigint_is_left_to_the_supervisor() -> None:
    """Both signals, twice: one drain."""

    async def story(commander: Commander, channel: WorkerChannel, did: list[str]) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        await channel.wait_finished()

    assert asyncio.run(play(story))[:1] == ["drain 7"]


def test_what_on_serve_raises_ends_the_worker_loudly() -> None:
    """The port taken: `finished` raises it, so that the exit code tells."""

    async def story(commander: Commander, channel: WorkerChannel, did: list[str]) -> None:
        commander.line.send({"type": "serve", "slot": 0, "port": 13})
        with pytest.raises(OSError, match="port 13"):
            await channel.wait_finished()

    asyncio.run(play(story))


def test_a_supervisor_that_does_not_read_costs_neither_time_nor_memory() -> None:
    """Heartbeats of 4 kB for a second that nobody reads: the loop turns, the buffer is bounded."""

    async def story(commander: Commander, channel: WorkerChannel, did: list[str]) -> None:
        big = "x" * 100_000
        turns = 0
        for _ in range(200):
            channel._connection.send_if_read(lambda: {"type": "heartbeat", "padding": big})
            await asyncio.sleep(0)
            turns += 1
        transport = channel._connection._transport
        assert turns == 200
        assert transport is not None
        assert transport.get_write_buffer_size() < 500_000
        channel._connection.close()
        transport.abort()

    asyncio.run(play(story, reads=False))


def test_garbage_on_the_line_ends_it() -> None:
    """One end gone mad must not feed the other nonsense."""

    async def story(commander: Commander, channel: WorkerChannel, did: list[str]) -> None:
        transport = commander.line._transport
        assert transport is not None
        transport.write(b"\xff" * 64)
        await channel.wait_finished()

    assert "drain 7" in asyncio.run(play(story))


ORPHAN = """
import json, os, sys, threading
from gateway.supervision.channel import die_with_supervisor
die_with_supervisor()
print(json.dumps(os.getpid()), flush=True)
threading.Event().wait()
"""

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
child.wait()
"""


@pytest.mark.walk
@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux")
def test_a_worker_stuck_outside_its_loop_dies_with_its_supervisor() -> None:
    """The kernel sends SIGTERM even where nobody reads the line."""

    async def walk() -> None:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PARENT, ORPHAN, stdout=asyncio.subprocess.PIPE
        )
        assert program.stdout is not None
        pid = json.loads(await program.stdout.readline())
        assert rss_bytes(pid) > 1_000_000
        program.kill()
        await program.wait()
        deadline = time.monotonic() + 5
        try:
            while rss_bytes(pid) > 0:  # a zombie has no memory
                assert time.monotonic() < deadline
                await asyncio.sleep(0.005)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    asyncio.run(walk())
