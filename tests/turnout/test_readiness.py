"""wait_until_ready, which `turnout splits preload` waits with."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from protos import registry_pb2
from turnout.cli import readiness
from turnout.cli.readiness import wait_until_ready
from turnout.errors import OperatorError

VersionLoad = registry_pb2.VersionLoad


def state(
    slot: int, versions: "VersionLoad.State.ValueType", *, gone: bool = False
) -> registry_pb2.GatewayState:
    """Return the state that worker *slot* reports of version 2."""
    load = VersionLoad(
        model="churn", version="2", state=VersionLoad.State.Name(versions), reason="golden row 3"
    )
    return registry_pb2.GatewayState(
        gateway="g", slot=slot, boot_id=1, loads=[load], disconnected=gone
    )


class ProgressRecorder:
    """Records the progress at each poll. Time passes by polls alone, however busy the host is."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, int, str]] = []
        self.polled = asyncio.Event()

    def show(self, ready: int, workers: int, waiting: str) -> None:
        """Record one call of the progress callback."""
        self.shown.append((ready, workers, waiting))
        self.polled.set()

    def now_s(self) -> float:
        """Return the seconds passed: POLL_INTERVAL_S for each poll."""
        return len(self.shown) * readiness.POLL_INTERVAL_S


class RegistryStates:
    """A registry that reports these states one after another, and then nothing more."""

    def __init__(self, states: Sequence[registry_pb2.GatewayState], polled: asyncio.Event) -> None:
        self._states = states
        self._polled = polled

    async def watch_states(self) -> AsyncIterator[registry_pb2.GatewayState]:
        """Yield each state once the one before has been seen by a poll."""
        for reported in self._states:
            yield reported
            self._polled.clear()
            await self._polled.wait()
        await asyncio.Event().wait()


def run_wait(*states: registry_pb2.GatewayState) -> tuple[int, list[tuple[int, int, str]]]:
    """Wait over these states; return the number of workers and every progress shown."""
    recorder = ProgressRecorder()
    registry = RegistryStates(states, recorder.polled)
    workers = asyncio.run(
        wait_until_ready(registry, "churn", ["2"], recorder.show, recorder.now_s)  # type: ignore[arg-type]
    )
    return workers, recorder.shown


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the waits of the module a hundred times shorter."""
    for name, seconds in (("NO_WORKER_S", 0.02), ("SETTLED_S", 0.015), ("POLL_INTERVAL_S", 0.002)):
        monkeypatch.setattr(readiness, name, seconds)


def test_wait_until_ready_returns_once_every_live_worker_is_ready() -> None:
    """One worker is ready at once, one loads first, one is gone."""
    workers, shown = run_wait(
        state(0, VersionLoad.READY), state(1, VersionLoad.LOADING), state(2, VersionLoad.LOADING),
        state(2, VersionLoad.LOADING, gone=True), state(1, VersionLoad.READY),
    )  # fmt: skip
    assert workers == 2
    assert any(waiting for _, _, waiting in shown)
    assert shown[-1] == (2, 2, "")


def test_wait_until_ready_returns_0_when_no_gateway_runs() -> None:
    """A gateway that starts later loads the version then."""
    assert run_wait()[0] == 0


def test_wait_until_ready_raises_the_reason_of_a_refusal_at_once() -> None:
    """Other workers may still be loading."""
    with pytest.raises(OperatorError, match="refused by worker g/1: golden row 3"):
        run_wait(state(0, VersionLoad.LOADING), state(1, VersionLoad.REFUSED))


def test_wait_until_ready_names_a_worker_that_does_not_load_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error says how to wait again."""
    monkeypatch.setattr(readiness, "READY_S_MAX", 0.03)
    with pytest.raises(OperatorError, match="worker g/0 still loads it; it goes on"):
        run_wait(state(0, VersionLoad.LOADING))
