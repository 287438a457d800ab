"""Where an online store is, read from its URL."""

from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

PORT_DEFAULT = 6379
SENTINEL_PORT_DEFAULT = 26379


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
    sentinels: tuple[tuple[str, int], ...] = ()
    """Whom to ask where the master is; empty: it is at host:port."""
    service: str = ""
    """What the sentinels call it."""
    sentinel_password: str = field(default="", repr=False)

    @property
    def display_name(self) -> str:
        """For messages: no user, no password."""
        if self.sentinels:
            asked = ",".join(f"{host}:{port}" for host, port in self.sentinels)
            return f"the master {self.service!r} of {asked}"
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"

    def handshake_commands(self) -> list[tuple[bytes, ...]]:
        """Return the commands a new connection sends: AUTH, ROLE, SELECT as needed, then PING.

        ROLE where Sentinel named the server: one that was demoted since must not be read.
        """
        commands: list[tuple[bytes, ...]] = []
        if self.password:
            names = (self.user.encode(),) if self.user else ()
            commands.append((b"AUTH", *names, self.password.encode()))
        if self.sentinels:
            commands.append((b"ROLE",))
        if self.database:
            commands.append((b"SELECT", b"%d" % self.database))
        return [*commands, (b"PING",)]


def parse_store_url(url: str) -> StoreAddress:
    """Read `redis://[user:password@]host[:port][/database]`, `unix://[user:password@]/path`, or
    `redis+sentinel://[user:password@]host[:port],.../service[/database][?sentinel_password=...]`.

    The user and password are the store's; the sentinels may have a password of their own.
    Raises StoreUrlError, which never repeats a password.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme == "redis+sentinel":
            return _by_sentinel(parts)
        port = parts.port or PORT_DEFAULT
    except StoreUrlError:
        raise
    except ValueError as error:
        raise StoreUrlError("the store's URL has a port or host that cannot be read") from error
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "unix" and parts.path:
        return StoreAddress(path=unquote(parts.path), user=user, password=password)
    if parts.scheme != "redis" or not parts.hostname:
        raise StoreUrlError(
            f"the store's URL starts with {parts.scheme!r}; it must be "
            "redis://[user:password@]host[:port][/database], unix:///path/to/socket or "
            "redis+sentinel://[user:password@]host[:port],.../service[/database]"
        )
    database = _database(parts.path.strip("/"))
    return StoreAddress(
        host=parts.hostname, port=port, database=database, user=user, password=password
    )


def _by_sentinel(parts: SplitResult) -> StoreAddress:
    """Read what urlsplit cannot: several hosts."""
    who, _, hosts = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    sentinels = tuple(_host_port(host) for host in hosts.split(",") if host)
    service, _, database = parts.path.strip("/").partition("/")
    if not sentinels or not service:
        raise StoreUrlError(
            f"the store's URL names {len(sentinels)} sentinels and the service {service!r}; it "
            "must be redis+sentinel://[user:password@]host[:port],.../service[/database]"
        )
    address = StoreAddress(
        user=unquote(user), password=unquote(password), database=_database(database)
    )
    words = parse_qs(parts.query).get("sentinel_password", [""])
    return replace(
        address, sentinels=sentinels, service=unquote(service), sentinel_password=words[0]
    )


def _host_port(text: str) -> tuple[str, int]:
    one = urlsplit(f"//{text}")
    return one.hostname or "", one.port or SENTINEL_PORT_DEFAULT


def _database(number: str) -> int:
    if number and not (number.isascii() and number.isdigit()):
        raise StoreUrlError(f"the store's URL names database {number!r}; it must be a number")
    return int(number or 0)


def encode_command(parts: tuple[bytes, ...]) -> bytes:
    """Return one command as the store reads it (RESP2)."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)
