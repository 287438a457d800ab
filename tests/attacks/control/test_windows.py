"""F1: windows promote, roll back, stop or blind nothing when they are forged."""

import itertools
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from protos import registry_pb2, registry_pb2_grpc, rollout_pb2, rollout_pb2_grpc, window_pb2_grpc
from protos import window_pb2 as pb
from tests.attacks.control.test_strangers import resident_mb
from tests.tiny_models import linear_weights, tiny_files
from tests.walks.identified_system import MODEL, IdentifiedSystem
from tests.walks.running_system import poll_system_until

pytestmark = pytest.mark.walk

NS = 1_000_000_000
CANARY, PRODUCTION = pb.ARM_CANARY, pb.ARM_PRODUCTION


class Attacked:
    """A rollout under way, its worker, and who may read it."""

    def __init__(self, system: IdentifiedSystem, channel: grpc.Channel, version: str) -> None:
        self.system = system
        self.version = version
        self.registry = registry_pb2_grpc.RegistryStub(channel)  # type: ignore[no-untyped-call]
        self.rollouts = rollout_pb2_grpc.RolloutsStub(channel)  # type: ignore[no-untyped-call]
        self.sink = window_pb2_grpc.WindowSinkStub(channel)  # type: ignore[no-untyped-call]
        self.worker = self._worker()

    def _worker(self) -> pb.Source:
        """Return the first serving worker, as every role can read it from the registry."""
        states = self.registry.WatchStates(
            registry_pb2.WatchStatesRequest(), metadata=self.system.metadata("bob"), timeout=20
        )
        real = next(state for state in states if not state.spare and not state.disconnected)
        states.cancel()
        return pb.Source(gateway=real.gateway, slot=real.slot, boot_id=real.boot_id)

    def status(self) -> rollout_pb2.RolloutStatus:
        """Return the status of the newest rollout."""
        status: rollout_pb2.RolloutStatus = self.rollouts.GetStatus(
            rollout_pb2.RolloutSelector(model=MODEL),
            metadata=self.system.metadata("bob"),
            timeout=10,
        )
        return status

    def push(
        self,
        metadata: Sequence[tuple[str, str]],
        source: pb.Source,
        *batches: pb.WindowBatch,
        opening: pb.Source | None = None,
    ) -> grpc.RpcError | None:
        """Push batches in one stream, until all are read; return the error that ended it."""

        def messages() -> Iterator[pb.WindowBatch]:
            yield pb.WindowBatch(source=opening or source)
            for batch in batches:
                batch.source.CopyFrom(source)
                yield batch

        try:
            list(self.sink.Push(messages(), metadata=tuple(metadata), timeout=20))
        except grpc.RpcError as error:
            return error
        return None

    def guard(self) -> pb.HardGuard:
        """Return a hard guard against the candidate."""
        return pb.HardGuard(
            model=MODEL,
            version=self.version,
            revision=self.status().revision,
            kind=pb.HardGuard.PROCESS_DIED,
            reason="forged",
        )

    def window(self, second: int, **fields: object) -> pb.Window:
        """Return a window of the candidate."""
        return pb.Window(
            model=MODEL,
            version=self.version,
            arm=CANARY,
            revision=self.status().revision,
            second=second,
            **fields,  # type: ignore[arg-type]
        )


@pytest.fixture(scope="module")
def attacked(
    attacked_system: IdentifiedSystem, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Attacked]:
    """A rollout that stands in its canary stage, without one real call. It is aborted after."""
    system = attacked_system
    files = tiny_files(MODEL, weights=-3 * linear_weights(3))
    label = system.register("alice", tmp_path_factory.mktemp("windows") / "files", files)
    line = ("versions", "approve", MODEL, label, "--policy", "demo-direct", "--yes")
    system.turnout("bob", *line)
    system.turnout("olga", "rollout", "start", MODEL, label, "--policy", "demo-direct")
    with system.system.registry_channel() as channel:
        attacked = Attacked(system, channel, label)
        poll_system_until(
            lambda: attacked.status().stage == rollout_pb2.CANARY_STAGE, 40.0, "canary stage"
        )
        yield attacked
    system.turnout("olga", "rollout", "abort", MODEL, "--reason", "the attacks are over")


@contextmanager
def second_gateway(attacked: Attacked) -> Iterator[pb.Source]:
    """Keep a worker of gateway `gw2` live, by its own token: what a bad gateway can do."""
    source = pb.Source(gateway="gw2", slot=0, boot_id=secrets.randbits(60))
    metadata = tuple(attacked.system.metadata("gw2"))
    state = registry_pb2.GatewayState(gateway="gw2", slot=0, boot_id=source.boot_id)
    for label in ("1", attacked.version):
        state.loads.add(model=MODEL, version=label, state=registry_pb2.VersionLoad.READY)
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(0.5):
            attacked.registry.ReportState(state, metadata=metadata, timeout=5)

    attacked.registry.ReportState(state, metadata=metadata, timeout=5)
    reporting = threading.Thread(target=report, daemon=True)
    reporting.start()
    try:
        # The controller learns of the worker from the registry.
        poll_system_until(lambda: attacked.push(metadata, source) is None, 10.0, "gw2 is known")
        yield source
    finally:
        ended.set()
        reporting.join()


def unchanged(attacked: Attacked) -> bool:
    """Whether the rollout still stands in its canary stage and is judged."""
    status = attacked.status()
    assert "judging it raised" not in status.reason, status.reason
    return status.stage == rollout_pb2.CANARY_STAGE


@pytest.mark.attack("F1")
def test_hard_guard_of_a_stranger_rolls_nothing_back(attacked: Attacked) -> None:
    """A stranger, or a person of another role, rolls back with one message."""
    source = pb.Source(gateway="nobody", boot_id=secrets.randbits(60))
    batch = pb.WindowBatch(sequence=1, guards=[attacked.guard()], sent_unix_ns=time.time_ns())
    for name, code in (
        ("", "UNAUTHENTICATED"),
        ("alice", "PERMISSION_DENIED"),
        ("bob", "PERMISSION_DENIED"),
        ("olga", "PERMISSION_DENIED"),
        ("ctl", "PERMISSION_DENIED"),
    ):
        metadata = attacked.system.metadata(name) if name else []
        for origin in (source, attacked.worker):
            error = attacked.push(metadata, origin, batch)
            assert error is not None
            assert error.code().name == code, name  # type: ignore[attr-defined]
    assert unchanged(attacked)


@pytest.mark.attack("F1")
def test_forged_evidence_of_a_stranger_promotes_nothing(attacked: Attacked) -> None:
    """A stranger forges clean keys for a version with reversed weights."""
    source = pb.Source(gateway="nobody", boot_id=secrets.randbits(60))
    second = time.time_ns() // NS
    keys = [secrets.randbits(64) for _ in range(2_000)]
    records = pb.KeyRecords(metric=pb.METRIC_SCORE, key_hash=keys, bin=[1] * len(keys))
    window = attacked.window(second, calls=pb.CallCounts(answered=2_000), records=[records])
    batch = pb.WindowBatch(sequence=1, windows=[window], sent_unix_ns=time.time_ns())
    error = attacked.push([], source, batch)
    assert error is not None
    assert attacked.status().calls.canary == 0
    assert unchanged(attacked)


@pytest.mark.attack("F1")
def test_gateway_pushes_windows_of_its_own_workers_only(attacked: Attacked) -> None:
    """A gateway speaks for another gateway's worker, or for one that nobody knows."""
    metadata = attacked.system.metadata("gw2")
    batch = pb.WindowBatch(sequence=2**62, sent_unix_ns=time.time_ns())
    error = attacked.push(metadata, attacked.worker, batch)
    assert error is not None
    assert error.code() == grpc.StatusCode.PERMISSION_DENIED  # type: ignore[attr-defined]
    unknown = pb.Source(gateway="gw2", slot=3, boot_id=secrets.randbits(60))
    error = attacked.push(metadata, unknown, batch)
    assert error is not None
    assert error.code() == grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
    # A stream that was opened for its own worker names another one later.
    with second_gateway(attacked) as own:
        error = attacked.push(metadata, attacked.worker, batch, opening=own)
        assert error is not None
        assert "this stream was opened for gw2" in error.details()  # type: ignore[attr-defined]
    assert unchanged(attacked)


@pytest.mark.attack("F1")
def test_malformed_windows_of_a_gateway_stop_no_rollout(attacked: Attacked) -> None:
    """A gateway sends columns of unequal length, batches of no calls, and invented versions."""
    metadata = attacked.system.metadata("gw2")
    second = time.time_ns() // NS
    timeouts = [
        pb.KeyRecords(metric=pb.METRIC_TIMEOUT, key_hash=[1, 2, 3], batch_calls=[1]),
        pb.KeyRecords(metric=pb.METRIC_TIMEOUT, key_hash=[1], batch_calls=[0]),
        pb.KeyRecords(metric=pb.METRIC_SCORE, key_hash=[1, 2], bin=[3]),
    ]
    windows = [attacked.window(second, records=[records]) for records in timeouts]
    windows += [attacked.window(second - 600), attacked.window(second, rows=2**64 - 1)]
    before = attacked.status().dropped_windows
    with second_gateway(attacked) as source:
        batch = pb.WindowBatch(sequence=1, windows=windows, sent_unix_ns=time.time_ns())
        assert attacked.push(metadata, source, batch) is None
        poll_system_until(
            lambda: attacked.status().dropped_windows == before + len(windows), 10.0, "counted"
        )
    assert unchanged(attacked)
    assert not any("late" in reason for reason in attacked.status().waiting_for)


@pytest.mark.attack("F1")
def test_jumps_of_sequence_and_clock_cost_the_sender_alone(attacked: Attacked) -> None:
    """A gateway jumps to sequence 2^62, and its clock is an hour ahead."""
    metadata = attacked.system.metadata("gw2")
    with second_gateway(attacked) as source:
        now_ns = time.time_ns()
        first = pb.WindowBatch(sequence=1, sent_unix_ns=now_ns)
        jump = pb.WindowBatch(sequence=2**62, sent_unix_ns=now_ns)
        error = attacked.push(metadata, source, first, jump)
        assert error is not None
        assert "may be lost" in error.details()  # type: ignore[attr-defined]
        poll_system_until(
            lambda: any("may be lost" in sender for sender in attacked.status().refused_senders),
            10.0,
            "the status says so",
        )
        # Its windows are not counted, whatever they say.
        late = attacked.window(now_ns // NS + 3_600, calls=pb.CallCounts(answered=10**6))
        ahead = pb.WindowBatch(sequence=2, windows=[late], sent_unix_ns=now_ns + 3_600 * NS)
        dropped = attacked.status().dropped_windows
        assert attacked.push(metadata, source, ahead) is None
        poll_system_until(
            lambda: any(
                "ahead of those of the controller and of" in sender
                for sender in attacked.status().refused_senders
            ),
            10.0,
            "the status says so",
        )
        # The real worker is not ahead: its windows still come.
    assert attacked.status().dropped_windows == dropped + 1
    waiting = attacked.status().waiting_for
    assert not any("never came" in reason or "late" in reason for reason in waiting), waiting
    assert unchanged(attacked)


@pytest.mark.attack("F1")
def test_windows_of_invented_models_take_no_memory(attacked: Attacked) -> None:
    """A gateway sends 200,000 windows of invented models."""
    metadata = attacked.system.metadata("gw2")
    pid = attacked.system.system.addresses.children["control"][0]
    second = time.time_ns() // NS

    def batch(number: int) -> pb.WindowBatch:
        windows = [
            pb.Window(
                model=f"invented-{number}-{index}",
                version="1",
                arm=PRODUCTION,
                revision=1,
                second=second,
                calls=pb.CallCounts(answered=1),
            )
            for index in range(4_000)
        ]
        return pb.WindowBatch(sequence=number, windows=windows, sent_unix_ns=time.time_ns())

    # The first batches may take memory that stays; the others may not.
    with second_gateway(attacked) as source:
        assert attacked.push(metadata, source, *map(batch, range(1, 6))) is None
        before = resident_mb(pid)
        assert attacked.push(metadata, source, *map(batch, range(6, 56))) is None
        assert resident_mb(pid) - before < 20
        # The log says so, ten seconds after its last such line at the latest.
        log = Path(attacked.system.system.folder / "logs" / "control.log")
        line = "windows dropped: gateway='gw2' model='' reason='model not deployed'"
        numbers = itertools.count(56)
        poll_system_until(
            lambda: (
                attacked.push(metadata, source, batch(next(numbers))) is None
                and line in log.read_text() in log.read_text()
            ),
            15.0,
            "dropped windows are logged",
        )
    assert unchanged(attacked)
