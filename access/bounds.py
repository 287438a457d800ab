"""The bounds of every request to registry and rollout: its texts in bytes, its lists in items.

access/requests.py counts the items of a large request before it is parsed. Then `check_request` is
called once for each request, whatever its RPC, before anything reads it. It walks the message by
its descriptor, so a new field has a bound before anybody thinks of one: NAME_BYTES_MAX for a text,
ITEMS_MAX for a list. A field that needs another bound has a row here.
docs/limits.md has the same tables; tests/house/test_limits.py compares them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from host.text import CONTROL, escape_controls

Item = TypeVar("Item", bound=Message)

MESSAGE_BYTES_MAX = 4 * 2**20
"""The largest message that control receives, after it is inflated. gRPC counts it while it
inflates, so a message that would become larger costs no more than this."""
CHUNK_BYTES_MAX = 2**20
"""Content of one chunk of a file, a checkpoint or a history entry."""
PAGE_BYTES_MAX = 2**20
"""A page of a list ends with the item that reaches this size."""
CHECKPOINT_BYTES_MAX = 32 * 2**20
"""A rollout's checkpoint, all its chunks together."""
PROJECT_BYTES_MAX = 16 * 2**20
"""The definitions of a project, and with them the whole request that applies it."""
ENTRY_BYTES_MAX = 2**18
"""A history entry in a list. The texts of a larger one are cut, and ReadEntry has it whole."""
ENTRY_TEXT_BYTES_MAX = 4_096
"""A text of an entry that was cut."""
CARD_BYTES_MAX = 2**20
"""card.json of a version that is registered. A larger one of an older registry is fetched as a
file."""

NAME_BYTES_MAX = 128
"""Every text without a row below: names, labels, digests, ids."""
ITEMS_MAX = 10_000
"""Every list of texts or messages without a row below."""

TEXT_BYTES_MAX = {
    "SetStatusRequest.reason": 4_096,
    "ApproveRequest.reason": 4_096,
    "SettingsRequest.reason": 4_096,
    "CloseReviewRequest.reason": 4_096,
    "Deployment.why": 4_096,
    "ApplyProjectRequest.reason": 4_096,
    "ProjectEffect.text": 512,
    "ApplyProjectRequest.definitions": PROJECT_BYTES_MAX,
    "Finding.text": 4_096,
    "BeginRunRequest.inputs_json": 2**18,
    "EndRunRequest.result_json": 2**18,
    "EndRunRequest.error": 4_096,
    "CancelRunRequest.reason": 4_096,
    "RunLogPart.text": 2**16,
    "OpenIncidentRequest.title": 512,
    "OpenIncidentRequest.figures_json": 8_192,
    "ChangeIncidentRequest.text": 4_096,
    "ChangeIncidentRequest.title": 512,
    "ChangeIncidentRequest.figures_json": 8_192,
    "OutsideModel.purpose": 1_024,
    "StartRolloutRequest.reason": 1_024,
    "RolloutCommand.reason": 1_024,
    "HardGuard.reason": 1_024,
    "VersionLoad.reason": 512,
    "RegistryAlarm.reason": 512,
    "ListHistoryRequest.object": 256,
    "VersionChunk.content": CHUNK_BYTES_MAX,
    "MessageChunk.content": CHUNK_BYTES_MAX,
    "Checkpoint.state": CHECKPOINT_BYTES_MAX,
    "CountColumn.name": 512,
    "DecisionBlock.content": MESSAGE_BYTES_MAX,
    "FiguresRequest.name": 1_024,
    "FiguresRequest.page_token": 4_096,
    "AlarmsRequest.page_token": 4_096,
    "LooksRequest.page_token": 4_096,
    "CellsRequest.page_token": 4_096,
    "ForgetRequest.id_digests": 2**21,
    "ScoresPart.at_unix_ms": 80_000,
    "ScoresPart.scores": 40_000,
    "OutcomesPart.at_unix_ms": 80_000,
    "OutcomesPart.values": 80_000,
}
"""Bytes of one text in UTF-8. A rollout's reasons are shorter, because the reason of its
deployment has them and the rollout's id."""

ITEMS_MAX_BY_FIELD = {
    "GatewayState.loads": 1_000,
    "GatewayState.alarms": 1_000,
    "GatewayState.applied": 1_000,
    "GatewayState.applied_unix_ns": 1_000,
    "Deployment.shadows": 16,
    "Deployment.preload": 16,
    "Deployment.digests": 64,
    "ApplyProjectRequest.effects": 400,
    "OpenIncidentRequest.links": 64,
    "PushRequest.rows": 1_000,
}
"""Items of one list. Every gateway worker has each shadow and each preloaded version in memory. The
effects of a project fit into a history entry. The texts of pushed rows have bounds of their own,
because one bad row must not cost the others (features/push/row_checks.py)."""

MACHINE_TEXTS = frozenset(
    {
        "Finding.text",
        "HardGuard.reason",
        "VersionLoad.reason",
        "RegistryAlarm.reason",
        "ProjectEffect.text",
        "EndRunRequest.error",
    }
)
"""Texts that a program wrote. They are escaped and cut, because a refusal would
lose the news. All other texts are refused with control characters or too many bytes."""

REQUIRED = frozenset(
    {
        "SetStatusRequest.reason",
        "ApproveRequest.reason",
        "SettingsRequest.reason",
        "CloseReviewRequest.reason",
        "CancelRunRequest.reason",
        "Deployment.why",
        "ApplyProjectRequest.reason",
    }
)
"""Reasons for the history, which must not be blank."""

_ENDING = " ... ({} bytes more)"


class BoundError(ValueError):
    """A field of a request is too large, blank, or has control characters."""


def check_request(message: Message) -> None:
    """Check every text and list of a request. Escape and cut what MACHINE_TEXTS names.

    Fields that this program does not know are dropped. Raises BoundError, which names the field,
    its size and its bound.
    """
    message.DiscardUnknownFields()  # type: ignore[attr-defined]
    _check(message, _checks_of(message.DESCRIPTOR))


def text_bytes_max(field: FieldDescriptor) -> int:
    """Return the bound of a text field, in bytes."""
    return TEXT_BYTES_MAX.get(_name(field), NAME_BYTES_MAX)


def items_max(field: FieldDescriptor) -> int:
    """Return the bound of a list of texts or messages."""
    return ITEMS_MAX_BY_FIELD.get(_name(field), ITEMS_MAX)


def first_page(items: Iterable[Item]) -> tuple[list[Item], bool]:
    """Return the items of one page, and whether there are more.

    The page ends with the item that reaches PAGE_BYTES_MAX; the items after it are not read.
    """
    page: list[Item] = []
    size = 0
    for item in items:
        if size >= PAGE_BYTES_MAX:
            return page, True
        page.append(item)
        size += item.ByteSize()
    return page, False


def cut_texts(message: Message, bytes_max: int | None = None) -> None:
    """Cut the texts of a reply that are older than the bounds, so that others can be sent.

    bytes_max  bound of each text; None: as in a request.
    """
    for field in message.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            text = getattr(message, field.name)
            setattr(message, field.name, cut_text(text, bytes_max or text_bytes_max(field)))


def cut_text(text: str, bytes_max: int) -> str:
    """Return *text*, or its beginning with a note of how much is left out, in *bytes_max* bytes."""
    encoded = text.encode()
    if len(encoded) <= bytes_max:
        return text
    kept = encoded[: max(0, bytes_max - len(_ENDING.format(len(encoded))))]
    kept_text = kept.decode(errors="ignore")
    return kept_text + _ENDING.format(len(encoded) - len(kept_text.encode()))


def _name(field: FieldDescriptor) -> str:
    return f"{field.containing_type.name}.{field.name}"


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


@dataclass(frozen=True, slots=True)
class _FieldCheck:
    """What is checked of one field. It is read from the descriptor once, and not for each call."""

    field: str
    name: str
    """As in the tables: "Finding.text"."""
    bytes_max: int
    items_max: int
    """0: the field is no list."""
    is_map: bool
    inner: "tuple[_FieldCheck, ...] | None"
    """The checks of a message in this field; None: it is a text."""


@cache
def _checks_of(descriptor: Descriptor) -> tuple[_FieldCheck, ...]:
    """Return the checks of a message. Numbers, and messages of numbers alone, need none."""
    texts = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
    checks = []
    for field in descriptor.fields:
        inner = None if field.message_type is None else _checks_of(field.message_type)
        if inner or field.type in texts or (inner is not None and field.is_repeated):
            counted = items_max(field) if field.is_repeated else 0
            most = text_bytes_max(field)
            checks.append(
                _FieldCheck(field.name, _name(field), most, counted, _is_map(field), inner)
            )
    return tuple(checks)


def _check(message: Message, checks: Sequence[_FieldCheck]) -> None:
    for check in checks:
        value = getattr(message, check.field)
        if check.items_max:
            _check_list(check, value)
        elif check.inner is None:
            # A text that was not sent has nothing to check, but a reason may have to be there.
            if value or check.name in REQUIRED:
                checked = _checked_text(check, value)
                if checked is not value:
                    setattr(message, check.field, checked)
        elif message.HasField(check.field):
            _check(value, check.inner)


def _check_list(check: _FieldCheck, items: Any) -> None:  # noqa: ANN401  a list or a mapping
    if len(items) > check.items_max:
        raise BoundError(f"{check.name} has {len(items)} items; the most is {check.items_max}")
    if check.is_map:
        for key, value in items.items():
            for text in (key, value):
                if isinstance(text, str):
                    _checked_text(check, text)
    elif check.inner is None:
        for text in items:
            _checked_text(check, text)
    elif check.inner:
        for item in items:
            _check(item, check.inner)


def _checked_text(check: _FieldCheck, text: str | bytes) -> str | bytes:
    """Return *text* as it may be kept; raise BoundError when it may not."""
    if isinstance(text, str) and check.name in MACHINE_TEXTS:
        return cut_text(escape_controls(text), check.bytes_max)
    # Characters have at least one byte, so most texts need not be encoded to be counted.
    size = len(text) if isinstance(text, bytes) or text.isascii() else len(text.encode())
    if size > check.bytes_max:
        raise BoundError(f"{check.name} has {size} bytes; the most is {check.bytes_max}")
    if isinstance(text, str) and not text.isprintable() and (found := CONTROL.search(text)):
        raise BoundError(
            f"{check.name} has the control character U+{ord(found[0]):04X} at position "
            f"{found.start()}; terminals and logs would obey it. Send plain text in one line"
        )
    if check.name in REQUIRED and not text.strip():
        raise BoundError(
            f"{check.name} is empty; the history needs a reason of 1 to {check.bytes_max} bytes"
        )
    return text
