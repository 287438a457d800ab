"""Every text and list of every request has a bound, also those that nobody has thought of."""

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from access import bounds
from protos import features_pb2, monitoring_pb2, registry_pb2, rollout_pb2, window_pb2

SERVICES = [
    *monitoring_pb2.DESCRIPTOR.services_by_name.values(),
    *registry_pb2.DESCRIPTOR.services_by_name.values(),
    *rollout_pb2.DESCRIPTOR.services_by_name.values(),
    *window_pb2.DESCRIPTOR.services_by_name.values(),
]
CHUNKED = [registry_pb2.Checkpoint.DESCRIPTOR, registry_pb2.ApplyProjectRequest.DESCRIPTOR]
"""Requests that come as a stream of chunks."""
TYPES = {
    rpc.input_type.full_name: rpc.input_type for service in SERVICES for rpc in service.methods
} | {kind.full_name: kind for kind in CHUNKED}
REQUESTS = sorted(TYPES)

Path = tuple[FieldDescriptor, ...]


def is_map(field: FieldDescriptor) -> bool:
    """Whether the field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def paths(descriptor: Descriptor, before: Path = ()) -> Iterator[Path]:
    """Yield the path of every field of a message, through the messages in it."""
    for field in descriptor.fields:
        yield (*before, field)
        if field.message_type is not None and not is_map(field):
            yield from paths(field.message_type, (*before, field))


def owner_of_last(message: Message, path: Path) -> Message:
    """Return the message in *message* that has the last field of *path*."""
    for field in path[:-1]:
        inner = getattr(message, field.name)
        message = inner.add() if field.is_repeated else inner
        if not field.is_repeated:
            message.SetInParent()
    return message


def texts_in(message: Message) -> Iterator[str]:
    """Yield every text of a message and of the messages in it. Of maps there are none."""
    for field, value in message.ListFields():
        for item in value if field.is_repeated else [value]:
            if isinstance(item, Message):
                yield from texts_in(item)
            elif isinstance(item, str):
                yield item


def fill_reasons(message: Message) -> None:
    """Give *message* the reasons that must be there, so that they are not what is refused."""
    for field in message.DESCRIPTOR.fields:
        if f"{field.containing_type.name}.{field.name}" in bounds.REQUIRED:
            setattr(message, field.name, "because")
        elif (
            field.message_type is not None
            and not field.is_repeated
            and message.HasField(field.name)
        ):
            fill_reasons(getattr(message, field.name))


def with_field(request: str, path: Path, value: object) -> Message:
    """Return a request whose last field of *path* has *value*, or one item of that value."""
    message = GetMessageClass(TYPES[request])()
    owner, field = owner_of_last(message, path), path[-1]
    fill_reasons(message)
    if field.is_repeated:
        getattr(owner, field.name).append(value)
    else:
        setattr(owner, field.name, value)
    return message


TEXTS = [
    pytest.param(request, path, id=".".join((request, *(field.name for field in path))))
    for request in REQUESTS
    for path in paths(TYPES[request])
    if path[-1].type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
]
LISTS = [
    pytest.param(request, path, id=".".join((request, *(field.name for field in path))))
    for request in REQUESTS
    for path in paths(TYPES[request])
    if path[-1].is_repeated
    and (path[-1].message_type is not None or path[-1].type == FieldDescriptor.TYPE_STRING)
]


def name_of(field: FieldDescriptor) -> str:
    """Return the name of a field in the tables."""
    return f"{field.containing_type.name}.{field.name}"


@pytest.mark.parametrize(("request_name", "path"), TEXTS)
def test_text_beyond_its_bound_is_refused_or_cut(request_name: str, path: Path) -> None:
    """The error names the field, its size and its bound."""
    field, most = path[-1], bounds.text_bytes_max(path[-1])
    letter: str | bytes = b"a" if field.type == FieldDescriptor.TYPE_BYTES else "a"
    bounds.check_request(with_field(request_name, path, letter * most))
    too_long = with_field(request_name, path, letter * (most + 1))
    if name_of(field) not in bounds.MACHINE_TEXTS:
        with pytest.raises(bounds.BoundError, match=rf"{field.name} has {most + 1} .* {most}$"):
            bounds.check_request(too_long)
    else:
        bounds.check_request(too_long)
        assert len(too_long.SerializeToString()) < most + 100


@pytest.mark.parametrize(("request_name", "path"), TEXTS)
@pytest.mark.parametrize("character", ["\x1b", "\n", "\x7f", "\x9b", "\u202e", "\u2028"])
def test_control_characters_are_refused_or_escaped(
    request_name: str, path: Path, character: str
) -> None:
    """No request brings a character that a terminal obeys into the registry."""
    field = path[-1]
    if field.type == FieldDescriptor.TYPE_BYTES:
        return
    message = with_field(request_name, path, f"red{character}[31m")
    if name_of(field) in bounds.MACHINE_TEXTS:
        bounds.check_request(message)
        assert character not in "".join(texts_in(message))
    else:
        with pytest.raises(bounds.BoundError, match=rf"{field.name} has the control .* position 3"):
            bounds.check_request(message)


@pytest.mark.parametrize(("request_name", "path"), LISTS)
def test_list_beyond_its_bound_is_refused(request_name: str, path: Path) -> None:
    """Items are counted before anything looks at them."""
    field, most = path[-1], bounds.items_max(path[-1])
    message = GetMessageClass(TYPES[request_name])()
    items = getattr(owner_of_last(message, path), field.name)
    fill_reasons(message)
    for number in range(most + 1):
        if is_map(field) and field.message_type.fields[1].type == FieldDescriptor.TYPE_STRING:
            items[str(number)] = ""
        elif is_map(field):
            items[str(number)] = number
        elif field.message_type is not None:
            items.add()
        else:
            items.append("")
    with pytest.raises(bounds.BoundError, match=rf"{name_of(field)} has {most + 1} items"):
        bounds.check_request(message)


def test_map_keys_and_values_are_texts_too() -> None:
    """They have the bound of a name."""
    deployment = registry_pb2.Deployment(why="because", digests={"1": "a" * 129})
    with pytest.raises(bounds.BoundError, match="digests has 129 bytes"):
        bounds.check_request(registry_pb2.DeployRequest(deployment=deployment))
    with pytest.raises(bounds.BoundError, match="applied has 129 bytes"):
        bounds.check_request(registry_pb2.GatewayState(applied={"a" * 129: 1}))


@pytest.mark.parametrize("name", sorted(bounds.REQUIRED))
@pytest.mark.parametrize("reason", ["", "  "])
def test_reason_must_not_be_blank(name: str, reason: str) -> None:
    """The history has a reason for each change."""
    message, field = name.split(".")
    kind = GetMessageClass(registry_pb2.DESCRIPTOR.message_types_by_name[message])
    with pytest.raises(bounds.BoundError, match=f"{name} is empty"):
        bounds.check_request(kind(**{field: reason}))


def test_tables_name_fields_of_requests_only() -> None:
    """A row for a field that is gone would bound nothing."""
    known = {
        name_of(field) for request in REQUESTS for path in paths(TYPES[request]) for field in path
    }
    # Pushed rows are checked one by one, so only their number is bounded here.
    known |= {name_of(field) for field in features_pb2.PushRequest.DESCRIPTOR.fields}
    rows = {*bounds.TEXT_BYTES_MAX, *bounds.ITEMS_MAX_BY_FIELD, *bounds.REQUIRED}
    assert rows | bounds.MACHINE_TEXTS <= known


def test_a_full_state_report_is_smaller_than_a_message() -> None:
    """Every text of its 1,000 versions is as long as it may be."""
    state = registry_pb2.GatewayState(gateway="g" * 128)
    for number in range(bounds.ITEMS_MAX_BY_FIELD["GatewayState.loads"]):
        name = f"{number:0128}"
        state.loads.add(model=name, version=name, digest=name, reason="r" * 512)
        state.applied[name] = state.applied_unix_ns[name] = 2**62
    bounds.check_request(state)
    assert state.ByteSize() < bounds.MESSAGE_BYTES_MAX


def test_unknown_fields_are_dropped() -> None:
    """They would be kept in memory with the message, and no row bounds them."""
    text = registry_pb2.Finding(text="a" * 100_000).SerializeToString()
    name = registry_pb2.ModelName.FromString(text)
    assert name.ByteSize() > 100_000
    bounds.check_request(name)
    assert name.ByteSize() == 0


def test_text_is_cut_between_characters() -> None:
    """The note says how many bytes are left out, and the whole fits into the bound."""
    cut = bounds.cut_text("ü" * 1_000, 101)
    assert len(cut.encode()) <= 101
    kept = cut.partition(" ... ")[0]
    assert cut == f"{kept} ... ({2_000 - 2 * len(kept)} bytes more)"
    assert kept
    assert bounds.cut_text("ü" * 50, 100) == "ü" * 50


def test_page_ends_by_bytes() -> None:
    """The items behind it are not read, and one large item is a page."""
    large = registry_pb2.Finding(text="a" * bounds.PAGE_BYTES_MAX)
    small = registry_pb2.Finding(text="a")
    read = iter([small, large, small, small])
    assert bounds.first_page(read) == ([small, large], True)
    assert list(read) == [small]
    assert bounds.first_page([large]) == ([large], False)
    assert bounds.first_page([]) == ([], False)
