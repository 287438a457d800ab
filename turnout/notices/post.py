"""One POST with one timeout for all of it. No body of an answer is read, and no redirect followed.

A receiver that sends a byte at a time would keep a client whose timeout is for each read.
"""

import asyncio
import contextlib
import ssl
from urllib.parse import urlsplit

from turnout.notices.messages import Notice

POST_S = 10.0
"""Timeout of name lookup, connection, TLS, request and status line together."""
STATUS_BYTES_MAX = 4_096


class NoticeError(Exception):
    """A notice was not taken. The text says why."""

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused
        """True if the receiver refuses this notice and would refuse it again."""


async def post_notice(notice: Notice, timeout_s: float = POST_S) -> None:
    """Send a notice. Raises NoticeError unless the receiver answers 2xx within *timeout_s*."""
    parts = urlsplit(notice.url)
    secure = parts.scheme == "https"
    host = parts.hostname or ""
    try:
        async with asyncio.timeout(timeout_s):
            status = await _status(
                notice,
                host=host,
                port=parts.port or (443 if secure else 80),
                path=f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}",
                context=ssl.create_default_context() if secure else None,
            )
    except TimeoutError as error:
        raise NoticeError(f"{host} did not answer within {timeout_s:g} s") from error
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        raise NoticeError(f"{host} cannot be reached: {error}") from error
    if not 200 <= status < 300:
        # Too many requests, timeouts and missing rights may be mended; a bad request is not.
        refused = 400 <= status < 500 and status not in (401, 403, 404, 407, 408, 425, 429)
        raise NoticeError(f"{host} answered status {status}", refused=refused)


async def _status(
    notice: Notice, *, host: str, port: int, path: str, context: ssl.SSLContext | None
) -> int:
    reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=STATUS_BYTES_MAX)
    try:
        named = f"[{host}]" if ":" in host else host
        lines = [
            f"POST {path} HTTP/1.1",
            f"host: {named}:{port}",
            "user-agent: turnout",
            "connection: close",
            f"content-length: {len(notice.body)}",
            *(f"{name}: {value}" for name, value in notice.headers.items()),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode() + notice.body)
        await writer.drain()
        return _read_status(await reader.readuntil(b"\n"))
    except asyncio.LimitOverrunError as error:
        raise ValueError("the status line is too long") from error
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


def _read_status(line: bytes) -> int:
    version, _, rest = line.partition(b" ")
    code = rest[:3]
    if not version.startswith(b"HTTP/1.") or not code.isdigit():
        raise ValueError(f"the answer {line[:40]!r} is no HTTP")
    return int(code)
