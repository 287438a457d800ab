"""The fields of a large message are counted before anything parses it."""

import re

import pytest
from google.protobuf.internal.encoder import _VarintBytes  # type: ignore[attr-defined]
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from access.bounds import ITEMS_MAX, MESSAGE_BYTES_MAX, BoundError
from access.requests import FIELDS_MAX, UNCOUNTED_BYTES_MAX, check_fields, parse_request
from protos import registry_pb2, window_pb2
from tests.property_examples import examples

FILLING = b"\x0a" + _VarintBytes(UNCOUNTED_BYTES_MAX) + bytes(UNCOUNTED_BYTES_MAX)
"""Field 1 with so many bytes that the message is counted."""


def in_field_1(content: bytes) -> bytes:
    """Return *content* as the bytes of field 1."""
    return b"\x0a" + bytes(_VarintBytes(len(content))) + content


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        (registry_pb2.GatewayState, b"\x2a\x00" * 2_000_000, "GatewayState.loads .* 1000 items"),
        (registry_pb2.GatewayState, b"\x32\x00" * 2_000_000, "GatewayState.applied .* 1000 items"),
        (registry_pb2.GatewayState, b"\x0a\x00" * 2_000_000, "GatewayState .* 5006 fields"),
        (registry_pb2.GatewayState, b"\xfa\x01\x00" * 9**6, "GatewayState .* 5006 fields"),
        # A tag in three bytes and not in one is the same field.
        (registry_pb2.GatewayState, b"\xaa\x80\x00\x00" * 9**6, "GatewayState.loads .* 1000 items"),
        # Groups of a field that is unknown hide nothing.
        (registry_pb2.GatewayState, b"\xfb\x01\xfc\x01" * 9**6, "GatewayState .* 5006 fields"),
        (
            registry_pb2.DeployRequest,
            in_field_1(b"\x32\x00" * 2_000_000),
            "Deployment.shadows .* 16 items",
        ),
        # A deployment that comes in parts is merged.
        (
            registry_pb2.DeployRequest,
            in_field_1(b"\x32\x00") * 1_000_000,
            "Deployment.shadows .* 16 items",
        ),
        (
            window_pb2.WindowBatch,
            b"\x1a\x00" * 2_000_000,
            f"WindowBatch.windows .* {ITEMS_MAX} items",
        ),
        # Windows of 100 records each.
        (
            window_pb2.WindowBatch,
            (b"\x1a\xac\x02" + b"\xa2\x01\x00" * 100) * 10_000,
            f"WindowBatch .* {FIELDS_MAX + 1_000} fields",
        ),
        (
            registry_pb2.ListModelsRequest,
            b"\x0a\x00" * 2_000_000,
            "ListModelsRequest .* 1001 fields",
        ),
    ],
)
def test_too_many_fields_are_refused(kind: type[Message], content: bytes, words: str) -> None:
    """The error names what there is too much of, and the bound."""
    with pytest.raises(BoundError, match=words.replace(" .* ", " has more than ")):
        check_fields(kind, content)


def test_large_requests_within_their_bounds_are_parsed() -> None:
    """A full report of a worker, a second of 4,096 windows with all fields, and a chunk."""
    state = registry_pb2.GatewayState(gateway="gw", slot=1, boot_id=2)
    for number in range(1_000):
        name = f"{number:0128}"
        state.loads.add(model=name, version=name, digest=name, reason="r" * 512)
        state.alarms.add()
        state.applied[name] = state.applied_unix_ns[name] = 2**62
    window = window_pb2.Window(model="m", version="1", second=2**40, rows=300, revision=2**62)
    window.latency.index.extend(range(60))
    window.latency.count.extend(range(60))
    for _ in range(5):
        window.records.add(key_hash=[2**63], bin=[1])
    batch = window_pb2.WindowBatch(sequence=7, windows=[window] * 4_096)
    chunk = registry_pb2.VersionChunk(model="m", file="f", content=bytes(2**20))
    for message in (state, batch, chunk):
        content = message.SerializeToString()
        assert UNCOUNTED_BYTES_MAX < len(content) < MESSAGE_BYTES_MAX
        assert parse_request(type(message), content) == message


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (b"\x2a", "no number begins"),
        (b"\x2a\x80", "no number begins"),
        (b"\x80" * 20, "no number begins"),
        (b"\x2a\x05abcd", "longer than its message"),
        (b"\x0d\x00\x00\x00", "longer than its message"),
        (b"\x09\x00", "longer than its message"),
        (b"\x0e", "longer than its message"),
        (b"\x0f", "longer than its message"),
        (b"\x02\x00", "no number of a field"),
        # The parser might read the lowest 32 bits of this tag, which are those of `loads`.
        (b"\xaa\x80\x80\x80\x10\x00", "no number of a field"),
    ],
)
def test_malformed_bytes_are_refused(ending: bytes, words: str) -> None:
    """What the count cannot read is not given to the parser, which might read it otherwise."""
    check_fields(registry_pb2.GatewayState, FILLING)
    with pytest.raises(DecodeError, match=re.escape(words)):
        check_fields(registry_pb2.GatewayState, FILLING + ending)
    # A field of an inner message does not reach beyond it.
    inner = registry_pb2.DeployRequest
    with pytest.raises(DecodeError, match=re.escape(words)):
        check_fields(inner, in_field_1(FILLING + ending))


@examples(200)
@given(st.binary(max_size=40))
def test_bytes_that_are_parsed_are_counted_or_refused(ending: bytes) -> None:
    """No bytes end the count in another way."""
    content = FILLING.replace(b"\x00", b"a") + ending
    try:
        check_fields(registry_pb2.GatewayState, content)
    except (BoundError, DecodeError):
        return
    # The parser may refuse more, such as a text that is not UTF-8 and a group without its end.
    try:
        state = registry_pb2.GatewayState.FromString(content)
    except DecodeError:
        return
    assert len(state.loads) <= 1_000
