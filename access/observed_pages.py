"""Refuses readers of HTTP pages who name a foreign host, or lack the observer's token."""

import hashlib
import hmac
import re
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus

from access.identities import UnidentifiedError, bearer_token

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
_HOST_OF_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PageRefusal:
    """Why a page is not shown: the status, and the text for the reader."""

    status: HTTPStatus
    text: str


def refuse_foreign_host(headers: Message) -> PageRefusal | None:
    """Return the refusal of a request that names another host than loopback; None: it does not.

    For a page on loopback: a page in somebody's browser could reach the port under a name of its
    own.
    """
    if _HOST_OF_LOOPBACK.fullmatch(headers.get("Host", "localhost")):
        return None
    text = f"this port answers for {', '.join(LOOPBACK_NAMES)} only; use one as the host\n"
    return PageRefusal(HTTPStatus.FORBIDDEN, text)


def refuse_other_token(headers: Message, token: str) -> PageRefusal | None:
    """Return the refusal of a request without the observer's *token*; None: it has it."""
    try:
        sent = headers.get_all("Authorization", ())
        given = bearer_token(("authorization", value) for value in sent)
    except UnidentifiedError as error:
        return PageRefusal(HTTPStatus.UNAUTHORIZED, f"{error}\n")
    # Hashes are compared, so that timing reveals nothing about a guess.
    if not hmac.compare_digest(_sha256(given), _sha256(token)):
        return PageRefusal(HTTPStatus.UNAUTHORIZED, "this token is not the observer's\n")
    return None


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
