"""F5: compressed messages cost nobody but their sender, on a fresh worker of each server.

A customer makes calls beside the attack from an address of its own: plain and compressed in turn to
the native server. The grpcio server takes no compressed calls.
`python -m benchmarks.endurance.hostile_clients` measures more kinds, with their bars.
"""

from pathlib import Path

import pytest

from benchmarks.endurance.hostile_clients import (
    DESCRIBE,
    OUTCOME,
    P99_MS,
    REFLECTION,
    STREAM,
    measure_bombs,
)
from benchmarks.standalone_gateway import PREDICT
from tests.front_doors import INGRESSES
from tests.processor_waits import ProcessorClock

pytestmark = pytest.mark.walk

SHARED_MACHINE_MS = 50.0
"""What others on the machine of a test may add to the customer's p99. The customer's calls follow
each other here, so that a pause of the machine delays one of them, and not all that were due."""


ROUNDS_MAX = 3


def broken_bars(kind: str, path: str, folder: Path, ingress: str) -> list[str]:
    """Return the bars that the attack breaks in each of ROUNDS_MAX rounds, in the last one's words.

    What an attack costs others, it costs in every round. What others on the machine cost does not
    come back each time.
    """
    broken = list[str]()
    for number in range(ROUNDS_MAX):
        (folder / str(number)).mkdir()
        figures = measure_bombs(
            *(kind, path, folder / str(number), ingress), pace_s=0.0, clock_of=ProcessorClock
        )
        print(f"{ingress} {kind} {path}: {figures}")  # noqa: T201  figures for `pytest -s`
        # A PredictStream answers each message by itself, and ends well.
        assert path == STREAM or "0" not in figures.outcome["statuses"]
        p99_ms = P99_MS + 3 * max(figures.before.p99, 0.0) + SHARED_MACHINE_MS
        broken = figures.broken_bars(p99_ms, float("inf"))
        if not broken:
            break
    return broken


@pytest.mark.attack("F5")
@pytest.mark.parametrize("ingress", INGRESSES)
@pytest.mark.parametrize(
    ("kind", "path"),
    [
        # One kind of each: much memory, a ratio below the bound, much time, many connections.
        ("zeros", PREDICT),
        ("near ratio", DESCRIBE),
        ("empty blocks", PREDICT),
        ("zeros, 400 connections", PREDICT),
        # Other kinds, and the same on other methods, with `make attacks` and at night.
        *(
            pytest.param(kind, path, marks=pytest.mark.nightly)
            for kind, paths in (
                ("zeros", (STREAM, OUTCOME, DESCRIBE, REFLECTION)),
                ("near ratio", (PREDICT, STREAM)),
                ("members", (PREDICT, DESCRIBE)),
                ("many tables", (PREDICT,)),
                ("long name", (PREDICT,)),
            )
            for path in paths
        ),
    ],
)
def test_compressed_messages_cost_nobody_else(
    kind: str, path: str, ingress: str, tmp_path: Path
) -> None:
    """A stranger sends gzip that unpacks to gigabytes, or that takes long to unpack to nothing."""
    assert broken_bars(kind, path, tmp_path, ingress) == []


@pytest.mark.attack("F5")
@pytest.mark.parametrize("ingress", INGRESSES)
def test_compressed_messages_of_many_addresses_cost_nobody_else(
    ingress: str, tmp_path: Path
) -> None:
    """24 addresses at once."""
    assert broken_bars("near ratio, 24 addresses", DESCRIBE, tmp_path, ingress) == []
