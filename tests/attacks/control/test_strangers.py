"""F1, F12, F14, F18: who has no right to something gets nothing of it, through real ports."""

import concurrent.futures
import hashlib
import http.client
import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from access.rules import PAGES
from protos import registry_pb2, registry_pb2_grpc, rollout_pb2, rollout_pb2_grpc
from tests.access.rights import CONTROL_SERVICES, may_call, methods_of
from tests.walks.identified_system import MODEL, IdentifiedSystem
from tests.walks.running_system import poll_system_until

pytestmark = pytest.mark.walk

Metadata = list[tuple[str, str]]
ROLE_OF = {
    "alice": "author",
    "bob": "approver",
    "olga": "operator",
    "ctl": "controller",
    "gw2": "gateway",
}
NOT_A_MESSAGE = b"\xff\xff"
CALL_S = 1.0
REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


@pytest.fixture
def control(attacked_system: IdentifiedSystem) -> Iterator[grpc.Channel]:
    """Give a channel to the control process, that takes no token along."""
    with attacked_system.system.registry_channel() as channel:
        yield channel


@contextmanager
def entry_of(system: IdentifiedSystem, name: str, expires: str | None = None) -> Iterator[Metadata]:
    """Give *name* a token of every role while the block runs; yield its metadata."""
    people = system.system.folder.parent / "people.json"
    before = people.read_text()
    entry = {"actor": name, "roles": sorted(ROLE_OF.values())}
    if expires is not None:
        entry["expires"] = expires
    digest = hashlib.sha256(f"secret-of-{name}".encode()).hexdigest()
    people.write_text(json.dumps(json.loads(before) | {digest: entry}))
    try:
        yield [("authorization", f"Bearer secret-of-{name}")]
    finally:
        people.write_text(before)


@pytest.fixture
def expired(attacked_system: IdentifiedSystem) -> Iterator[Metadata]:
    """Give the metadata of a token of every role that has expired, while it is in the file."""
    with entry_of(attacked_system, "past", "2020-01-01") as metadata:
        yield metadata


def status_of(channel: grpc.Channel, method: str, metadata: Metadata, kind: Any) -> grpc.StatusCode:  # noqa: ANN401
    """Call *method* with bytes that are no message; return the status."""
    try:
        if kind.client_streaming:
            call = channel.stream_unary(method)
            call(iter([NOT_A_MESSAGE]), metadata=metadata, timeout=CALL_S)
        elif kind.server_streaming:
            stream = channel.unary_stream(method)
            list(stream(NOT_A_MESSAGE, metadata=metadata, timeout=CALL_S))
        else:
            channel.unary_unary(method)(NOT_A_MESSAGE, metadata=metadata, timeout=CALL_S)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()  # type: ignore[attr-defined]
        return code
    return grpc.StatusCode.OK


@pytest.mark.attack("F1")
def test_every_rpc_of_control_is_refused_to_who_may_not_call_it(
    attacked_system: IdentifiedSystem, control: grpc.Channel, expired: Metadata
) -> None:
    """Everybody calls every RPC of the control process without the right to it."""
    strangers: dict[str, Metadata] = {
        "nobody": [],
        "a name": [("x-turnout-actor", "olga")],
        "a wrong token": [("authorization", "Bearer secret-of-eve")],
        "an expired token": expired,
        "no Bearer": [("authorization", attacked_system.secret("olga"))],
        "two tokens": attacked_system.metadata("olga") * 2,
    }
    for method, kind in methods_of(*CONTROL_SERVICES).items():
        for who, metadata in strangers.items():
            status = status_of(control, method, metadata, kind)
            assert status == grpc.StatusCode.UNAUTHENTICATED, (method, who)
        for name, role in ROLE_OF.items():
            status = status_of(control, method, attacked_system.metadata(name), kind)
            if may_call(method, role):
                assert status not in REFUSED, (method, name)
            else:
                assert status == grpc.StatusCode.PERMISSION_DENIED, (method, name)


@pytest.mark.attack("F1")
def test_unknown_methods_are_known_to_nobody_without_a_token(
    attacked_system: IdentifiedSystem, control: grpc.Channel
) -> None:
    """A stranger asks which methods there are."""
    calls = [
        control.unary_unary(f"/turnout.v1.{name}") for name in ("Registry/Deploy", "Registry/Drop")
    ]
    texts = []
    for call in calls:
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=5)
        texts.append((refused.value.code(), refused.value.details()))  # type: ignore[attr-defined]
    assert texts[0] == texts[1]
    with pytest.raises(grpc.RpcError) as unknown:
        calls[1](b"", metadata=attacked_system.metadata("bob"), timeout=5)
    assert unknown.value.code() == grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


@pytest.mark.attack("F1")
def test_evidence_is_not_shown_without_a_token(control: grpc.Channel) -> None:
    """A stranger reads revision and evidence of a rollout."""
    rollouts = rollout_pb2_grpc.RolloutsStub(control)  # type: ignore[no-untyped-call]
    selector = rollout_pb2.RolloutSelector(model=MODEL)
    for read in (rollouts.GetStatus, rollouts.Explain, rollouts.ListRollouts):
        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            read(selector, timeout=5)
    with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
        list(rollouts.WatchStatus(selector, timeout=5))


@pytest.mark.attack("F12")
def test_presence_of_a_worker_is_its_gateways_own(
    attacked_system: IdentifiedSystem, control: grpc.Channel
) -> None:
    """A reader keeps a dead worker alive; a gateway speaks for another one."""
    registry = registry_pb2_grpc.RegistryStub(control)  # type: ignore[no-untyped-call]
    states = registry.WatchStates(
        registry_pb2.WatchStatesRequest(), metadata=attacked_system.metadata("bob"), timeout=10
    )
    real = next(iter(states))
    states.cancel()
    watch = registry_pb2.WatchDeploymentsRequest(
        gateway=real.gateway, slot=real.slot, boot_id=real.boot_id
    )
    for name in ("bob", "olga", "ctl", "gw2"):
        with pytest.raises(grpc.RpcError, match="speaks for that gateway"):
            list(registry.WatchDeployments(watch, metadata=attacked_system.metadata(name)))
    for gateway in (real.gateway, "ghost"):
        state = registry_pb2.GatewayState(gateway=gateway, slot=0, boot_id=7)
        with pytest.raises(grpc.RpcError, match="speaks for that gateway"):
            registry.ReportState(state, metadata=attacked_system.metadata("gw2"), timeout=5)


@pytest.mark.attack("F18")
def test_expired_token_is_refused_in_words(expired: Metadata, control: grpc.Channel) -> None:
    """The owner of a token of every role uses it after its end."""
    registry = registry_pb2_grpc.RegistryStub(control)  # type: ignore[no-untyped-call]

    def words() -> str:
        with pytest.raises(grpc.RpcError) as refused:
            registry.ListModels(registry_pb2.ListModelsRequest(), metadata=expired, timeout=5)
        return str(refused.value.details())  # type: ignore[attr-defined]

    # The file has just been changed, and is read again within a second.
    poll_system_until(lambda: "'past' expired at 2020-01-01" in words(), 10.0, "expired")


@pytest.mark.attack("F18")
def test_revoked_token_ends_its_open_stream(
    attacked_system: IdentifiedSystem, control: grpc.Channel
) -> None:
    """Somebody whose token was taken out of the file goes on watching."""
    registry = registry_pb2_grpc.RegistryStub(control)  # type: ignore[no-untyped-call]
    watch = registry_pb2.WatchDeploymentsRequest()
    with entry_of(attacked_system, "dismissed") as metadata:

        def opened() -> Any:  # noqa: ANN401  a stream of grpc
            stream = registry.WatchDeployments(watch, metadata=metadata, timeout=20)
            try:
                next(stream)
            except grpc.RpcError:
                return None  # the file has not been read again
            return stream

        stream = poll_system_until(opened, 10.0, "the new token")
    # The token is out of the file now: the stream ends long before its timeout.
    with pytest.raises(grpc.RpcError) as refused:
        next(stream)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.attack("F14")
def test_body_of_a_refused_call_is_not_read(attacked_system: IdentifiedSystem) -> None:
    """Twenty strangers send 39 MiB each at once."""
    pid = attacked_system.system.addresses.children["control"][0]
    body = registry_pb2.SetStatusRequest(model=MODEL, reason="A" * (39 * 2**20))
    content = body.SerializeToString()

    def send(_number: int) -> str:
        own_connection = ("grpc.use_local_subchannel_pool", 1)
        with attacked_system.system.registry_channel(own_connection) as channel:
            call = channel.unary_unary("/turnout.v1.Registry/SetStatus")
            with pytest.raises(grpc.RpcError) as refused:
                call(content, timeout=60)
            return str(refused.value.code().name)  # type: ignore[attr-defined]

    before = resident_mb(pid)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, range(20)))
    assert set(answers) == {"UNAUTHENTICATED"}
    assert resident_mb(pid) - before < 20


def page_status(address: str, path: str, headers: Sequence[tuple[str, str]]) -> int:
    """Return the status of a page of the supervisor."""
    with closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        connection.request("GET", path, headers=dict(headers))
        return connection.getresponse().status


@pytest.mark.attack("F1")
def test_pages_of_the_supervisor_need_the_observers_token(
    attacked_system: IdentifiedSystem,
) -> None:
    """A stranger reads the metrics; a web page reads them under a name of its own."""
    addresses = attacked_system.system.addresses
    address = addresses.metrics.removeprefix("http://").removesuffix("/metrics")
    token = Path(addresses.observe_token_file).read_text(encoding="ascii").strip()
    tokens = [attacked_system.secret(name) for name in ROLE_OF]
    for path, rule in PAGES.items():
        shown = {page_status(address, path, [("Authorization", f"Bearer {token}")])}
        assert shown == {200}
        strangers: list[list[tuple[str, str]]] = [[], [("Authorization", token)]]
        strangers += [[("Authorization", f"Bearer {other}")] for other in tokens]
        found = {page_status(address, path, headers) for headers in strangers}
        assert found == ({200} if rule.open else {401}), path
        own_name = [("Authorization", f"Bearer {token}"), ("Host", "evil.example")]
        assert page_status(address, path, own_name) == 403
