"""The worker's event loop reports each callback that holds it, with the name of its function."""

import asyncio
import os
import time
from collections.abc import Iterator

import uvloop

from gateway.telemetry.loop_stalls import (
    STALL_NS_MIN,
    TimedLoop,
    callback_name,
    run_in_slices,
)


def hold_the_loop() -> None:
    """Use the processor for ten times as long as a stall must last."""
    until_ns = time.perf_counter_ns() + 10 * STALL_NS_MIN
    while time.perf_counter_ns() < until_ns:
        pass


class Part:
    """A part that holds the loop when a descriptor is readable."""

    def on_readable(self) -> None:
        """Hold the loop once."""
        asyncio.get_running_loop().remove_reader(self.descriptor)
        hold_the_loop()

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor


async def hold_in_second_step() -> None:
    """Hold the loop after a pause, in a step that a timer resumes."""
    await asyncio.sleep(0.001)
    hold_the_loop()


def test_loop_names_the_source_of_each_stall() -> None:
    """Callbacks, timers, readers and steps of tasks are named by their functions."""
    stalls: list[tuple[str, int]] = []

    async def walk() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TimedLoop)
        loop.on_stall = lambda source, held_ns: stalls.append((source, held_ns))
        reading, writing = os.pipe()
        loop.add_reader(reading, Part(reading).on_readable)
        os.write(writing, b"x")
        loop.call_soon(hold_the_loop)
        loop.call_at(loop.time() + 0.002, hold_the_loop)
        await loop.create_task(hold_in_second_step())
        await asyncio.sleep(0.01)
        os.close(reading)
        os.close(writing)

    uvloop.run(walk(), loop_factory=TimedLoop)

    held = [source for source, held_ns in stalls if held_ns >= 10 * STALL_NS_MIN]
    expected = ["Part.on_readable", "hold_in_second_step", "hold_the_loop", "hold_the_loop"]
    assert sorted(held) == expected


def test_loop_reports_a_callback_that_raises_and_goes_on() -> None:
    """The error reaches the handler of the loop, as it does without timing."""
    stalls, errors = [], []

    def fail() -> None:
        hold_the_loop()
        raise ValueError

    async def walk() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TimedLoop)
        loop.on_stall = lambda source, _: stalls.append(source)
        loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
        loop.call_soon(fail)
        await asyncio.sleep(0.001)

    uvloop.run(walk(), loop_factory=TimedLoop)

    assert any(source.endswith("fail") for source in stalls)
    assert [type(error) for error in errors] == [ValueError]


def test_work_in_slices_lets_other_callbacks_run_between_its_steps() -> None:
    """What was scheduled during a step of ten slices runs before the next step."""
    events: list[str] = []

    def steps() -> Iterator[None]:
        for number in range(3):
            asyncio.get_running_loop().call_soon(events.append, f"other {number}")
            hold_the_loop()
            events.append(f"step {number}")
            yield

    asyncio.run(run_in_slices(steps()))

    assert events == ["step 0", "other 0", "step 1", "other 1", "step 2", "other 2"]


def test_callback_without_a_name_has_that_of_its_type() -> None:
    """A name that is None ended the page of metrics."""

    class Unnamed:
        """A callback whose name is None."""

    unnamed = Unnamed()
    unnamed.__qualname__ = None  # type: ignore[attr-defined]
    assert callback_name(unnamed).endswith("Unnamed")
    assert callback_name(hold_the_loop) == "hold_the_loop"
