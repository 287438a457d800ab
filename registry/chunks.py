"""Cuts files and large messages into chunks for a stream, and joins them again."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from access.bounds import CHUNK_BYTES_MAX, BoundError
from access.requests import parse_request
from protos import registry_pb2 as pb
from registry.manifest import FILES_MAX, TOTAL_BYTES_MAX
from registry.types import BadRequestError, RegistryFullError

MessageKind = TypeVar("MessageKind", bound=Message)


def file_chunks(model: str, files: Mapping[str, bytes]) -> Iterator[pb.VersionChunk]:
    """Cut files into messages of at most 1 MiB, file by file. An empty file gives one message."""
    for name, content in files.items():
        for part in _parts(content):
            yield pb.VersionChunk(model=model, file=name, content=part)


def message_chunks(message: Message) -> Iterator[pb.MessageChunk]:
    """Cut the bytes of a message that may be large into chunks of at most 1 MiB."""
    for part in _parts(message.SerializeToString()):
        yield pb.MessageChunk(content=part)


def _parts(content: bytes) -> Iterator[bytes]:
    for start in range(0, max(len(content), 1), CHUNK_BYTES_MAX):
        yield content[start : start + CHUNK_BYTES_MAX]


async def join_content(chunks: AsyncIterator[pb.MessageChunk], bytes_max: int = 0) -> bytes:
    """Return the bytes of a message that comes in chunks.

    bytes_max  raise BadRequestError beyond it; 0: the sender is trusted.
    """
    content = bytearray()
    async for chunk in chunks:
        content += chunk.content
        if bytes_max and len(content) > bytes_max:
            raise BadRequestError(f"more than {bytes_max} bytes came, which are the most")
    return bytes(content)


async def join_message(
    chunks: AsyncIterator[pb.MessageChunk], kind: type[MessageKind], bytes_max: int
) -> MessageKind:
    """Join the chunks of a request, and check its bounds as those of any request.

    Raises BadRequestError beyond *bytes_max*, for a field beyond its bound, and for other bytes.
    """
    content = await join_content(chunks, bytes_max)
    try:
        return parse_request(kind, content)
    except BoundError as error:
        raise BadRequestError(str(error)) from error
    except DecodeError as error:
        raise BadRequestError(
            f"the {len(content)} bytes are not a {kind.DESCRIPTOR.name}"
        ) from error


async def join_files(chunks: AsyncIterator[pb.VersionChunk]) -> tuple[str, dict[str, bytes]]:
    """Join chunks and return the model and its files. Refuse more bytes than a version may have."""
    model, name, size = "", "", 0
    parts: dict[str, list[bytes]] = {}
    async for chunk in chunks:
        model = model or chunk.model
        if chunk.file != name and chunk.file in parts:
            raise BadRequestError(
                f"file {chunk.file[:80]!r} came in two parts with another file between; send one "
                "file after the other"
            )
        name = chunk.file
        size += len(chunk.content)
        parts.setdefault(name, []).append(chunk.content)
        if size > TOTAL_BYTES_MAX or len(parts) > FILES_MAX:
            raise RegistryFullError(
                f"{len(parts)} files with {size} bytes came; a version has at most {FILES_MAX} "
                f"files and {TOTAL_BYTES_MAX} bytes"
            )
    return model, {name: b"".join(contents) for name, contents in parts.items()}
