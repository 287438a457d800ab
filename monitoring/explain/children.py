"""Child processes that hold prepared versions, at most a few at a time.

The control process never loads ONNX Runtime, and a version is what its author wrote. So each
version is explained by a child of its own, which stays until others are asked for more. A child
that is late or dies is replaced at the next request.
"""

import asyncio
import json
import os
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from host.child_process import ChildProcess, ResourceLimits, describe_exit
from host.files import pack_files
from registry.explanation.errors import NotExplainedError

MODULE = "monitoring.explain.child"
CHILDREN_MAX = 4
"""Versions that stay prepared. A child has some 100 MB."""
MEMORY_MB = 3_072
"""Address space of a child: ONNX Runtime, the version, and the tables of its leaves."""
PREPARE_S = 60.0
ANSWER_S = 20.0
ANSWER_BYTES_MAX = 4 * 2**20
"""A line of a child. A version of 5,000 inputs needs some 2 MB."""
REFUSALS_MAX = 64
"""Versions of which it is known that they cannot be explained."""

FetchFiles = Callable[[], Awaitable[Mapping[str, bytes]]]


@dataclass(eq=False)
class _VersionChild:
    """A child with its end of the socket. *busy* is held while a request is answered."""

    process: ChildProcess
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)


class ExplainerChildren:
    """Explains rows of any version by children. Call `close` at the end."""

    def __init__(self, *, most: int = CHILDREN_MAX, answer_s: float = ANSWER_S) -> None:
        self._most = most
        self._answer_s = answer_s
        self._children: OrderedDict[str, _VersionChild] = OrderedDict()
        self._starting: dict[str, asyncio.Lock] = {}
        self._refused: OrderedDict[str, str] = OrderedDict()

    @property
    def pids(self) -> list[int]:
        """The process ids of the children, the one used longest ago first."""
        return [child.process.pid for child in self._children.values()]

    async def explain(
        self, digest: str, fetch: FetchFiles, request: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the child's answer to *request* about the version with this id.

        fetch  returns the files of the version; called if no child holds it.

        Raises NotExplainedError, also if the child dies or is late.
        """
        if digest in self._refused:
            raise NotExplainedError(self._refused[digest])
        while True:
            child = await self._child(digest, fetch)
            async with child.busy:
                # It may have been ended while this request waited for another one.
                if not child.process.exited.done() and not child.writer.is_closing():
                    return await self._ask(digest, child, request)

    async def _ask(
        self, digest: str, child: _VersionChild, request: Mapping[str, Any]
    ) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._answer_s):
                child.writer.write(json.dumps(request).encode() + b"\n")
                reply = await _read_line(child)
        except TimeoutError as error:
            await self._end(digest, child)
            raise NotExplainedError(
                f"no explanation after {self._answer_s:g} s; its process was ended. Ask again "
                "without the smallest change (--no-change), which takes longest"
            ) from error
        except BaseException:
            # Whoever hangs up leaves an answer in the socket, so the child cannot go on either.
            await self._end(digest, child)
            raise
        if "refused" in reply:
            raise NotExplainedError(str(reply["refused"]))
        return reply

    async def close(self) -> None:
        """End every child."""
        while self._children:
            _, child = self._children.popitem()
            await _ended(child)

    async def _child(self, digest: str, fetch: FetchFiles) -> _VersionChild:
        """Return the child of a version; start one, in place of the one used longest ago."""
        async with self._starting.setdefault(digest, asyncio.Lock()):
            # Who waited for the lock finds the child that another request started.
            child = self._children.get(digest)
            if child is not None and not child.process.exited.done():
                self._children.move_to_end(digest)
                return child
            started = await _start(digest, await fetch())
            try:
                async with asyncio.timeout(PREPARE_S):
                    reply = await _read_line(started)
            except TimeoutError as error:
                await _ended(started)
                raise NotExplainedError(
                    f"the version was not prepared within {PREPARE_S:g} s"
                ) from error
            except BaseException:
                await _ended(started)
                raise
            if "refused" in reply:
                await _ended(started)
                self._note_refusal(digest, str(reply["refused"]))
                raise NotExplainedError(self._refused[digest])
            self._children[digest] = started
            self._starting.pop(digest, None)
        # The child that was used longest ago makes room.
        while len(self._children) > self._most:
            oldest, child = next(iter(self._children.items()))
            del self._children[oldest]
            # A request that it is answering may end first.
            async with child.busy:
                await _ended(child)
        return started

    def _note_refusal(self, digest: str, reason: str) -> None:
        self._refused[digest] = reason
        self._starting.pop(digest, None)
        while len(self._refused) > REFUSALS_MAX:
            self._refused.popitem(last=False)

    async def _end(self, digest: str, child: _VersionChild) -> None:
        if self._children.get(digest) is child:
            del self._children[digest]
        await _ended(child)


async def _start(digest: str, files: Mapping[str, bytes]) -> _VersionChild:
    """Start a child over *files*."""
    limits = ResourceLimits(memory_mb=MEMORY_MB)
    files_fd = await asyncio.to_thread(pack_files, files)
    own, theirs = socket.socketpair()
    try:
        arguments = [
            f"--files-fd={files_fd}",
            f"--channel-fd={theirs.fileno()}",
            f"--digest={digest}",
        ]
        process = ChildProcess(
            MODULE, [*limits.to_arguments(), *arguments], (files_fd, theirs.fileno())
        )
    except OSError as error:
        own.close()
        raise NotExplainedError(
            f"no process could be started ({error.strerror}); ask again"
        ) from error
    finally:
        os.close(files_fd)
        theirs.close()
    own.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=own, limit=ANSWER_BYTES_MAX)
    return _VersionChild(process, reader, writer)


async def _read_line(child: _VersionChild) -> dict[str, Any]:
    """Return one message of a child. Raises NotExplainedError if it ended or wrote no message."""
    try:
        line = await child.reader.readline()
    except ConnectionError:
        line = b""
    except ValueError as error:
        raise NotExplainedError("its process wrote no explanation") from error
    if not line.endswith(b"\n"):
        code = await child.process.exited
        raise NotExplainedError(
            f"its process ended with {describe_exit(code)}; the version may need more than "
            f"{MEMORY_MB} MB, or crash"
        )
    try:
        message = json.loads(line)
    except ValueError as error:
        raise NotExplainedError("its process wrote no explanation") from error
    if not isinstance(message, dict):
        raise NotExplainedError("its process wrote no explanation")
    return message


async def _ended(child: _VersionChild) -> None:
    child.writer.close()
    child.process.kill()
    await child.process.exited
