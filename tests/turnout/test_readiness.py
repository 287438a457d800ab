"""`turnout splits preload` returns when every live worker has loaded it, or says why not."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from protos import registry_pb2
from turnout.cli import readiness
from turnout.cli.readiness import wait_until_ready
from turnout.errors import OperatorError

Held = registry_pb2.HeldVersion


def state(
    slot: int, held: "Held.State.ValueType", *, gone: bool = False
) -> registry_pb2.GatewayState:
    """What worker *slot* says of version 2."""
    said = Held(model="churn", version="2", state=Held.State.Name(held), reason="golden row 3")
    return registry_pb2.GatewayState(gateway="g", slot=slot, boot_id=1, held=[said], gone=gone)


class Looks:
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
        return len(self.shown) * readiness.LOOK_S


class Told:
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


def waited(*states: registry_pb2.GatewayState) -> tuple[int, list[tuple[int, int, str]]]:
    """Return (workers, what was shown)."""
    looks = Looks()
    told = Told(states, looks.looked)
    workers = asyncio.run(
        wait_until_ready(told, "churn", ["2"], looks.show, looks.now_s)  # type: ignore[arg-type]
    )
    return workers, looks.shown


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds as hundredths."""
    for name, seconds in (("NOBODY_S", 0.02), ("QUIET_S", 0.015), ("LOOK_S", 0.002)):
        monkeypatch.setattr(readiness, name, seconds)


def test_it_returns_once_every_live_worker_is_ready() -> None:
    """One is ready at once, one loads first, one has left."""
    workers, shown = waited(
        state(0, Held.READY), state(1, Held.LOADING), state(2, Held.LOADING),
        state(2, Held.LOADING, gone=True), state(1, Held.READY),
    )  # fmt: skip
    assert workers == 2
    assert any(waiting for _, _, waiting in shown)
    assert shown[-1] == (2, 2, "")


def test_where_no_gateway_is_live_nothing_is_waited_for() -> None:
    """They load it when they come."""
    assert waited()[0] == 0


def test_a_refusal_is_said_with_its_reason() -> None:
    """And at once, whatever the others do."""
    with pytest.raises(OperatorError, match="refused by worker g/1: golden row 3"):
        waited(state(0, Held.LOADING), state(1, Held.REFUSED))


def test_a_worker_that_never_loads_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while, with the way out."""
    monkeypatch.setattr(readiness, "READY_S_MAX", 0.03)
    with pytest.raises(OperatorError, match="worker g/0 still loads it; it goes on"):
        waited(state(0, Held.LOADING))
