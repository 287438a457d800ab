"""The control connection sends complete messages, and no end waits for the other."""

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
from host.processes import rss_bytes
from tests.property_examples import examples

payloads = st.dictionaries(
    st.text(max_size=5), st.text() | st.floats(allow_nan=False) | st.integers()
)


@examples(30)
@given(st.lists(payloads, max_size=6), st.lists(st.integers(1, 30), min_size=1))
def test_frame_decoder_returns_complete_messages_from_any_chunks(
    values: list[Message], cuts: list[int]
) -> None:
    """Any messages cut into any chunks come out equal and in order."""
    messages = [
        {"type": "x", **{f"k{key}": value for key, value in item.items()}} for item in values
    ]
    sent = b"".join(map(encode_frame, messages))
    decoder, received, start = FrameDecoder(), [], 0
    for index in range(len(sent)):
        size = cuts[index % len(cuts)]
        received += decoder.feed(sent[start : start + size])
        start += size
    assert received == messages


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (struct.pack("<I", FRAME_BYTES_MAX + 1), f"{FRAME_BYTES_MAX} at most"),
        (struct.pack("<I", 3) + b"\xff{}", "is not JSON"),
        (struct.pack("<I", 4) + b"[1] ", "no object with a type"),
        (struct.pack("<I", 2) + b"{}", "no object with a type"),
    ],
)
def test_frame_decoder_refuses_bytes_that_are_no_frame(frame: bytes, message: str) -> None:
    """The length is out of bounds, the bytes are not JSON, or there is no object or no type."""
    with pytest.raises(FrameError, match=message):
        FrameDecoder().feed(frame)


def test_encode_frame_refuses_a_message_that_is_too_large() -> None:
    """The sender gets the error, not the other end."""
    with pytest.raises(FrameError, match="a metrics of"):
        encode_frame({"type": "metrics", "snapshot": "x" * FRAME_BYTES_MAX})


class FakeSupervisor:
    """The supervisor's end of the connection, driven by a test."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.connection: ControlConnection

    def kinds(self) -> list[str]:
        """Types of the messages received so far, without heartbeats."""
        return [message["type"] for message in self.received if message["type"] != "heartbeat"]

    async def wait_until(self, holds: Callable[[], object]) -> None:
        """Wait until *holds* returns true, 5 s at most."""
        deadline = time.monotonic() + 5
        while not holds():
            assert time.monotonic() < deadline, self.received
            await asyncio.sleep(0.001)


Story = Callable[[FakeSupervisor, WorkerChannel, list[str]], Awaitable[None]]


async def run_story(story: Story, *, supervisor_reads: bool = True) -> list[str]:
    """Run *story* between a fake supervisor and a started channel; return the calls made."""
    parent_end, child_end = socket.socketpair()
    supervisor, log = FakeSupervisor(), list[str]()
    if supervisor_reads:
        supervisor.connection = await ControlConnection.attach(
            parent_end, supervisor.received.append, lambda: log.append("lost")
        )
    channel = WorkerChannel(child_end.detach(), heartbeat_ms=2, metrics_ms=4, orphan_grace_s=7.0)

    async def on_serve(slot: int, port: int) -> None:
        log.append(f"serve {slot} {port}")
        if port == 13:
            raise OSError("port 13 is taken")

    async def on_drain(grace_s: float) -> None:
        log.append(f"drain {grace_s:g}")

    # Start the worker's end; the story then acts for both ends.
    await channel.start(
        on_serve=on_serve,
        on_drain=on_drain,
        gauges=lambda: {"rows_inside": 3.0},
        snapshot=lambda: {"turnout_calls": []},
    )
    try:
        await story(supervisor, channel, log)
    finally:
        # The channel's signal handlers must not outlive the test.
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not supervisor_reads:
            parent_end.close()
    return log


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[list[str]]], list[str]]:
    """Run on each event loop that a worker may use."""
    return asyncio.run if request.param == "asyncio" else uvloop.run  # type: ignore[return-value]


def test_worker_channel_sends_and_executes_messages_in_order(
    run: Callable[[Awaitable[list[str]]], list[str]],
) -> None:
    """The order is hello, ready, serving, draining, a last snapshot, and the end."""

    async def story(supervisor: FakeSupervisor, channel: WorkerChannel, log: list[str]) -> None:
        channel.announce_ready()
        supervisor.connection.send({"type": "serve", "slot": 1, "port": 8500})
        await supervisor.wait_until(lambda: "serving" in supervisor.kinds())
        await supervisor.wait_until(lambda: len(supervisor.received) > 12)
        supervisor.connection.send({"type": "drain", "grace_s": 2.5})
        supervisor.connection.send({"type": "drain", "grace_s": 9.0})
        await channel.wait_finished()
        await supervisor.wait_until(lambda: "lost" in log)
        kinds = supervisor.kinds()
        assert kinds[0] == "hello"
        assert [k for k in kinds if k != "metrics"] == ["hello", "ready", "serving", "draining"]
        assert kinds[-1] == "metrics"
        heartbeat = next(m for m in supervisor.received if m["type"] == "heartbeat")
        assert heartbeat["rows_inside"] == 3.0
        assert heartbeat["loop_lag_ms"] >= 0

    assert run(run_story(story)) == ["serve 1 8500", "drain 2.5", "lost"]


def test_worker_channel_drains_once_when_the_supervisor_is_gone(
    run: Callable[[Awaitable[list[str]]], list[str]],
) -> None:
    """The end of the connection starts one drain, with orphan_grace_s."""

    async def story(supervisor: FakeSupervisor, channel: WorkerChannel, log: list[str]) -> None:
        supervisor.connection.close()
        await channel.wait_finished()

    assert run(run_story(story)) == ["lost", "drain 7"]


def test_worker_channel_drains_once_for_sigterm_and_ignores_sigint() -> None:
    """Each signal is sent twice; one drain starts."""

    async def story(supervisor: FakeSupervisor, channel: WorkerChannel, log: list[str]) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        await channel.wait_finished()

    assert asyncio.run(run_story(story))[:1] == ["drain 7"]


def test_worker_channel_raises_the_error_of_on_serve() -> None:
    """When the port is in use, wait_finished raises the error, so that the exit code shows it."""

    async def story(supervisor: FakeSupervisor, channel: WorkerChannel, log: list[str]) -> None:
        supervisor.connection.send({"type": "serve", "slot": 0, "port": 13})
        with pytest.raises(OSError, match="port 13"):
            await channel.wait_finished()

    asyncio.run(run_story(story))


def test_control_connection_bounds_memory_while_the_supervisor_does_not_read() -> None:
    """200 heartbeats of 100 kB are not read: the loop goes on and the buffer stays bounded."""

    async def story(supervisor: FakeSupervisor, channel: WorkerChannel, log: list[str]) -> None:
        padding = "x" * 100_000
        turns = 0
        for _ in range(200):
            channel._connection.send_if_read(lambda: {"type": "heartbeat", "padding": padding})
            await asyncio.sleep(0)
            turns += 1
        transport = channel._connection._transport
        assert turns == 200
        assert transport is not None
        assert transport.get_write_buffer_size() < 500_000
        channel._connection.close()
        transport.abort()

    asyncio.run(run_story(story, supervisor_reads=False))


def test_control_connection_ends_at_a_broken_frame() -> None:
    """Bytes that are no frame end the connection, so the worker drains."""

    async def story(supervisor: FakeSupervisor, channel: WorkerChannel, log: list[str]) -> None:
        transport = supervisor.connection._transport
        assert transport is not None
        transport.write(b"\xff" * 64)
        await channel.wait_finished()

    assert "drain 7" in asyncio.run(run_story(story))


ORPHAN = """
import json, os, sys, threading
from host.processes import die_with_parent
die_with_parent()
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
def test_die_with_parent_ends_a_worker_that_hangs_outside_its_loop() -> None:
    """The kernel sends SIGTERM to a worker that does not read its connection."""

    async def walk() -> None:
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PARENT, ORPHAN, stdout=asyncio.subprocess.PIPE
        )
        assert parent.stdout is not None
        pid = json.loads(await parent.stdout.readline())
        assert rss_bytes(pid) > 1_000_000
        parent.kill()
        await parent.wait()
        deadline = time.monotonic() + 5
        try:
            while rss_bytes(pid) > 0:  # a zombie has no memory
                assert time.monotonic() < deadline
                await asyncio.sleep(0.005)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    asyncio.run(walk())
