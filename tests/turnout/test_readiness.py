"""`turnout splits preload` returns when every live worker has loaded it, or says why not."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from protos import registry_pb2
from turnout.cli import readiness
from turnout.cli.readiness import wait_until_ready
from turnout.errors import OperatorError

HeldVersion = registry_pb2.VersionLoad


def state(
    slot: int, versions: "HeldVersion.State.ValueType", *, gone: bool = False
) -> registry_pb2.GatewayState:
    """What worker *slot* says of version 2."""
    said = HeldVersion(
        model="churn", version="2", state=HeldVersion.State.Name(versions), reason="golden row 3"
    )
    return registry_pb2.GatewayState(
        gateway="g", slot=slot, boot_id=1, loads=[said], disconnected=gone
    )


class ProgressRecorder:
    """What was shown at each look; time passes by looks alone, however busy the host is."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, int, str]] = []
        self.looked = asyncio.Event()

    def show(self, ready: int, workers: int, waiting: str) -> None:
        """Keep it."""
        self.shown.append((ready, workers, waiting))
        self.looked.set()

    def now_s(self) -> float:
        """LOOK_S a look."""
        return len(self.shown) * readiness.POLL_INTERVAL_S


class RegistryStates:
    """A registry that tells of these workers, one after another, and of nothing more."""

    def __init__(self, states: Sequence[registry_pb2.GatewayState], looked: asyncio.Event) -> None:
        self._states = states
        self._looked = looked

    async def watch_states(self) -> AsyncIterator[registry_pb2.GatewayState]:
        """Each once the one before was looked at."""
        for one in self._states:
            yield one
            self._looked.clear()
            await self._looked.wait()
        await asyncio.Event().wait()


def run_wait(*states: registry_pb2.GatewayState) -> tuple[int, list[tuple[int, int, str]]]:
    """Return (workers, what was shown)."""
    looks = ProgressRecorder()
    told = RegistryStates(states, looks.looked)
    workers = asyncio.run(
        wait_until_ready(told, "churn", ["2"], looks.show, looks.now_s)  # type: ignore[arg-type]
    )
    return workers, looks.shown


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds as hundredths."""
    for name, seconds in (("NO_WORKER_S", 0.02), ("SETTLED_S", 0.015), ("POLL_INTERVAL_S", 0.002)):
        monkeypatch.setattr(readiness, name, seconds)


def test_it_returns_once_every_live_worker_is_ready() -> None:
    """One is ready at once, one loads first, one has left."""
    workers, shown = run_wait(
        state(0, HeldVersion.READY), state(1, HeldVersion.LOADING), state(2, HeldVersion.LOADING),
        state(2, HeldVersion.LOADING, gone=True), state(1, HeldVersion.READY),
    )  # fmt: skip
    assert workers == 2
    assert any(waiting for _, _, waiting in shown)
    assert shown[-1] == (2, 2, "")


def test_where_no_gateway_is_live_nothing_is_waited_for() -> None:
    """They load it when they come."""
    assert run_wait()[0] == 0


def test_a_refusal_is_said_with_its_reason() -> None:
    """And at once, whatever the others do."""
    with pytest.raises(OperatorError, match="refused by worker g/1: golden row 3"):
        run_wait(state(0, HeldVersion.LOADING), state(1, HeldVersion.REFUSED))


def test_a_worker_that_never_loads_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while, with the way out."""
    monkeypatch.setattr(readiness, "READY_S_MAX", 0.03)
    with pytest.raises(OperatorError, match="worker g/0 still loads it; it goes on"):
        run_wait(state(0, HeldVersion.LOADING))
