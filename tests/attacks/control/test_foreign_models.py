"""F3, F8: a version that hangs, crashes, is hungry or mixes its callers harms nobody."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from features.canonical import sha256_hex
from protos import registry_pb2, registry_pb2_grpc, rollout_pb2, rollout_pb2_grpc
from registry.bundle import seal_files
from registry.chunks import file_chunks
from tests.fatal_models import crashing_files, memory_hungry_files, spinning_files
from tests.neighbour_models import NEIGHBOURS, Graph, neighbour_files
from tests.registry.registry_fixture import probe_runs
from tests.tiny_models import tiny_files
from tests.walks.identified_system import MODEL, IdentifiedSystem
from tests.walks.models.test_isolation import on_x86
from tests.walks.running_system import poll_system_until

pytestmark = pytest.mark.walk

HUNG_UP_S = 1.2
"""Timeout of the attackers' calls."""
ORDINARY_S = 2.0
"""Time within which other calls answer on a busy machine."""


@contextmanager
def control_channel(system: IdentifiedSystem) -> Iterator[grpc.Channel]:
    """Connect to the control process."""
    with system.system.registry_channel() as channel:
        yield channel


def sealed_by_alice(files: Mapping[str, bytes], at: int = 1) -> dict[str, bytes]:
    """Seal *files* as a version of the model by alice."""
    return seal_files(files, model=MODEL, author="alice", created_unix_ms=at)


def register(system: IdentifiedSystem, sealed: Mapping[str, bytes], timeout: float) -> str:
    """Register as alice; return "OK", or the name of the status and its message."""
    with control_channel(system) as channel:
        registry = registry_pb2_grpc.RegistryStub(channel)  # type: ignore[no-untyped-call]
        try:
            registry.RegisterVersion(
                file_chunks(MODEL, sealed), metadata=system.metadata("alice"), timeout=timeout
            )
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    return "OK"


def slowest_call(system: IdentifiedSystem, turns: Iterable[object]) -> float:
    """Ask registry and controller once in each turn; return the seconds of the slowest call."""
    slowest = 0.0
    with control_channel(system) as channel:
        registry = registry_pb2_grpc.RegistryStub(channel)  # type: ignore[no-untyped-call]
        rollouts = rollout_pb2_grpc.RolloutsStub(channel)  # type: ignore[no-untyped-call]
        calls: list[tuple[Callable[..., object], object]] = [
            (registry.GetDeployment, registry_pb2.ModelName(model=MODEL)),
            (registry.ListHistory, registry_pb2.ListHistoryRequest(limit=10)),
            (rollouts.ListRollouts, rollout_pb2.RolloutSelector()),
        ]
        for _ in turns:
            for call, request in calls:
                began = time.monotonic()
                call(request, metadata=system.metadata("olga"), timeout=10)
                slowest = max(slowest, time.monotonic() - began)
    return slowest


def while_any_runs(calls: Sequence["Future[str]"]) -> Iterator[None]:
    """Yield until all *calls* have ended."""
    while not all(call.done() for call in calls):
        yield


@pytest.mark.attack("F3")
def test_endless_registrations_delay_nobody(attacked_system: IdentifiedSystem) -> None:
    """An author registers six versions that never end, and hangs up."""
    endless = [
        sealed_by_alice({**spinning_files(), "card.json": b'{"n": %d}' % number})
        for number in range(6)
    ]
    # One after another: each that hung in a thread of the registry itself would keep the thread.
    with ThreadPoolExecutor(1) as attacker:
        calls = [
            attacker.submit(register, attacked_system, sealed, HUNG_UP_S) for sealed in endless
        ]
        slowest = slowest_call(attacked_system, while_any_runs(calls))
    slowest = max(slowest, slowest_call(attacked_system, range(3)))
    # Nobody waited, every child has ended with its caller, and the next version is registered.
    assert {call.result().partition(":")[0] for call in calls} == {"DEADLINE_EXCEEDED"}
    assert slowest < ORDINARY_S
    digests = [sha256_hex(sealed["manifest.json"]) for sealed in endless]
    poll_system_until(
        lambda: not any(probe_runs(digest) for digest in digests), 5, "the children ended"
    )
    honest = sealed_by_alice({**tiny_files(MODEL), "card.json": b'{"after": "the attack"}'})
    assert register(attacked_system, honest, 30) == "OK"


@on_x86
@pytest.mark.attack("F3")
def test_crashing_registration_ends_only_its_child(attacked_system: IdentifiedSystem) -> None:
    """An author registers versions whose golden rows end the process that scores them."""
    for turn in range(3):
        answer = register(attacked_system, sealed_by_alice(crashing_files(), at=turn), 30)
        assert answer == (
            "FAILED_PRECONDITION: its probe ended with SIGFPE while scoring the golden rows"
        )
        assert slowest_call(attacked_system, range(3)) < ORDINARY_S


@pytest.mark.attack("F3")
def test_hungry_registration_is_refused_in_its_child(attacked_system: IdentifiedSystem) -> None:
    """An author registers a version that asks for 3.6 GB."""
    answer = register(attacked_system, sealed_by_alice(memory_hungry_files(900_000_000)), 60)
    assert answer.startswith("FAILED_PRECONDITION: golden.npz cannot be scored")
    assert "in a child of at most 2048 MB" in answer


@pytest.mark.attack("F8")
@pytest.mark.parametrize("graph", NEIGHBOURS, ids=lambda graph: graph.__name__)
def test_version_that_mixes_callers_is_refused(
    graph: Graph, attacked_system: IdentifiedSystem
) -> None:
    """An author registers a version whose scores depend on other callers' rows or calls."""
    answer = register(attacked_system, sealed_by_alice(neighbour_files(graph)), 30)
    assert answer.startswith("FAILED_PRECONDITION: golden row ")
    assert "a score must depend on its own row only" in answer


@pytest.mark.attack("F3")
@pytest.mark.parametrize(
    ("card", "reason"),
    [
        (b'{"auc": 1e999}', "larger than any double"),
        (b'{"auc": 0.5, "auc": 0.9}', "the key 'auc' is there twice"),
    ],
)
def test_card_that_readers_understand_differently_is_refused(
    card: bytes, reason: str, attacked_system: IdentifiedSystem
) -> None:
    """An author registers a card of two meanings: 1e999, or a key twice."""
    answer = register(
        attacked_system, sealed_by_alice({**tiny_files(MODEL), "card.json": card}), 30
    )
    assert answer.startswith("FAILED_PRECONDITION: card.json")
    assert reason in answer


@pytest.mark.attack("F3")
def test_file_names_that_differ_by_case_are_refused(attacked_system: IdentifiedSystem) -> None:
    """An author registers Model.onnx beside model.onnx."""
    # seal_files refuses the twins, so the attacker renames one afterwards.
    sealed = sealed_by_alice({**tiny_files(MODEL), "Other.onnx": b"another"})
    sealed["manifest.json"] = sealed["manifest.json"].replace(b"Other.onnx", b"Model.onnx")
    sealed["Model.onnx"] = sealed.pop("Other.onnx")
    answer = register(attacked_system, sealed, 30)
    assert "'model.onnx' and 'Model.onnx' differ by case only" in answer or (
        "'Model.onnx' and 'model.onnx' differ by case only" in answer
    )
