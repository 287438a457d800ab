"""Where an online store is, read from its URL."""

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

PORT_DEFAULT = 6379


class StoreUrlError(ValueError):
    """A store's URL is not one that this program can use: the operator's mistake."""


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A Redis-speaking store. Prints without its password."""

    host: str = ""
    port: int = PORT_DEFAULT
    path: str = ""
    """A Unix socket; empty: TCP."""
    database: int = 0
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def place(self) -> str:
        """For messages: no user, no password."""
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"

    def greeting(self) -> list[tuple[bytes, ...]]:
        """Return the commands a new connection sends: AUTH and SELECT as needed, then PING."""
        commands: list[tuple[bytes, ...]] = []
        if self.password:
            names = (self.user.encode(),) if self.user else ()
            commands.append((b"AUTH", *names, self.password.encode()))
        if self.database:
            commands.append((b"SELECT", b"%d" % self.database))
        return [*commands, (b"PING",)]


def parse(url: str) -> StoreAddress:
    """Read `redis://[user:password@]host[:port][/database]` or `unix://[user:password@]/path`.

    Raises StoreUrlError, which never repeats a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or PORT_DEFAULT
    except ValueError as error:
        raise StoreUrlError("the store's URL has a port or host that cannot be read") from error
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "unix" and parts.path:
        return StoreAddress(path=unquote(parts.path), user=user, password=password)
    if parts.scheme != "redis" or not parts.hostname:
        raise StoreUrlError(
            f"the store's URL starts with {parts.scheme!r}; it must be "
            "redis://[user:password@]host[:port][/database] or unix:///path/to/socket"
        )
    number = parts.path.strip("/")
    if number and not (number.isascii() and number.isdigit()):
        raise StoreUrlError(f"the store's URL names database {number!r}; it must be a number")
    return StoreAddress(
        host=parts.hostname, port=port, database=int(number or 0), user=user, password=password
    )


def encode_command(parts: tuple[bytes, ...]) -> bytes:
    """Return one command as the store reads it (RESP2)."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)
