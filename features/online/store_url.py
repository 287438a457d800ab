"""Parses the URL of an online store, and encodes commands for it."""

import re
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

PORT_DEFAULT = 6379
SENTINEL_PORT_DEFAULT = 26379

NAMESPACE = re.compile("[a-z0-9][a-z0-9_.-]{0,31}")
"""A namespace in the keys of an environment that shares its store with others."""


class StoreUrlError(ValueError):
    """The URL of a store cannot be used. The operator must correct it."""


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Address and credentials of a store that speaks the Redis protocol. repr hides passwords."""

    host: str = ""
    port: int = PORT_DEFAULT
    path: str = ""
    """Path of a Unix socket; empty for TCP."""
    database: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    sentinels: tuple[tuple[str, int], ...] = ()
    """Host and port of each sentinel; empty when the store is at host:port."""
    service: str = ""
    """The sentinels' name for the group of master and replicas."""
    sentinel_password: str = field(default="", repr=False)
    namespace: str = ""
    """Stands in every key, so that environments that share a store do not share rows."""

    @property
    def display_name(self) -> str:
        """The address as messages show it, without user and password."""
        if self.sentinels:
            sentinels = ",".join(f"{host}:{port}" for host, port in self.sentinels)
            return f"the master {self.service!r} of {sentinels}"
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"

    def handshake_commands(self) -> list[tuple[bytes, ...]]:
        """Return the commands that a new connection sends: AUTH, ROLE, SELECT if needed, and PING.

        ROLE is sent when Sentinel named the server, because a server that has been demoted since
        must not be read from.
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
    """Return the address that a URL in one of three forms names.

    redis://[user:password@]host[:port][/database][?namespace=NAME]
    unix://[user:password@]/path[?namespace=NAME]
    redis+sentinel://[user:password@]host[:port],.../service[/database][?sentinel_password=...]

    User and password are the store's. The sentinels may have another password. Each form takes a
    namespace. Raises StoreUrlError for any other text, and for a part that would have no effect.
    Its message never repeats a password.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme == "redis+sentinel":
            return _by_sentinel(parts)
        options = _options(parts, ("namespace",))
        port = _port(parts, PORT_DEFAULT)
    except StoreUrlError:
        raise
    except ValueError as error:
        raise StoreUrlError("the store's URL has a port or host that cannot be read") from error
    # User and password may have percent-encoded characters.
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    _check_login(user, password)
    if parts.scheme == "unix" and parts.path and not parts.hostname:
        address = StoreAddress(path=unquote(parts.path), user=user, password=password)
        return replace(address, **options)
    # All that is left is TCP.
    if parts.scheme != "redis" or not parts.hostname:
        raise StoreUrlError(
            f"the store's URL starts with {parts.scheme!r}; it must be "
            "redis://[user:password@]host[:port][/database], unix:///path/to/socket or "
            "redis+sentinel://[user:password@]host[:port],.../service[/database]. "
            "For a store with TLS, run a proxy such as stunnel on this host and name its address"
        )
    database = _database(parts.path.strip("/"))
    address = StoreAddress(
        host=parts.hostname, port=port, database=database, user=user, password=password
    )
    return replace(address, **options)


def url_with_credentials(url: str, user: str, password: str) -> str:
    """Return *url*, which has no credentials, with a user and a password in it."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"


def _by_sentinel(parts: SplitResult) -> StoreAddress:
    # urlsplit cannot read more than one host, so the network location is split by hand.
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    sentinels = tuple(_host_port(host) for host in hosts.split(",") if host)
    service, _, database = parts.path.strip("/").partition("/")
    if not sentinels or not service:
        raise StoreUrlError(
            f"the store's URL names {len(sentinels)} sentinels and the service {service!r}; it "
            "must be redis+sentinel://[user:password@]host[:port],.../service[/database]"
        )
    user, password = unquote(user), unquote(password)
    _check_login(user, password)
    address = StoreAddress(user=user, password=password, database=_database(database))
    options = _options(parts, ("namespace", "sentinel_password"))
    return replace(address, sentinels=sentinels, service=unquote(service), **options)


def _options(parts: SplitResult, known: tuple[str, ...]) -> dict[str, Any]:
    """Return the options after "?". Options that one side would ignore are refused by all sides."""
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    unknown = sorted(options.keys() - set(known))
    if unknown or len(options) < len(pairs) or parts.fragment:
        wrong = f"the option {unknown[0]!r}" if unknown else "an option twice, or a part after '#'"
        raise StoreUrlError(
            f"the store's URL has {wrong}; its options are {' and '.join(known)}, each once, and "
            "the number of a database follows host and port: redis://host:port/2"
        )
    namespace = options.get("namespace")
    if namespace is not None and not NAMESPACE.fullmatch(namespace):
        raise StoreUrlError(
            f"the store's URL has the namespace {namespace!r}; a namespace has 1 to 32 small "
            "letters, digits, '_', '.' and '-', and begins with a letter or digit"
        )
    return options


def _host_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path or parts.username is not None:
        raise StoreUrlError(f"the store's URL names the sentinel {text!r}; it must be host[:port]")
    return parts.hostname, _port(parts, SENTINEL_PORT_DEFAULT)


def _port(parts: SplitResult, default: int) -> int:
    if parts.port == 0:
        raise StoreUrlError("the store's URL names port 0, at which nothing can listen")
    return parts.port or default


def _check_login(user: str, password: str) -> None:
    """Refuse a user without a password: one side would send it, and the other would not."""
    if user and not password:
        raise StoreUrlError(
            f"the store's URL names the user {user!r} without a password; write user:password@"
        )


def _database(number: str) -> int:
    if number and not (number.isascii() and number.isdigit()):
        raise StoreUrlError(f"the store's URL names database {number!r}; it must be a number")
    return int(number or 0)


def encode_command(parts: tuple[bytes, ...]) -> bytes:
    """Return the bytes of one command in RESP2: an array of byte strings with their lengths."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)
