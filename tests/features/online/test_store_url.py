"""Tests of store URLs: the accepted forms, and passwords that are never shown."""

import pytest

from features.online.store_url import StoreAddress, StoreUrlError, encode_command, parse_store_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://db.example:7000/3", StoreAddress(host="db.example", port=7000, database=3)),
        ("redis://localhost", StoreAddress(host="localhost", port=6379)),
        ("redis://[::1]:1", StoreAddress(host="::1", port=1)),
        ("redis://:p%40w@h", StoreAddress(host="h", password="p@w")),
        ("redis://u:pw@h", StoreAddress(host="h", user="u", password="pw")),
        ("unix:///run/store.sock", StoreAddress(path="/run/store.sock")),
        (
            "redis://h/2?namespace=shop-dev",
            StoreAddress(host="h", database=2, namespace="shop-dev"),
        ),
        ("unix:///s?namespace=a", StoreAddress(path="/s", namespace="a")),
        (
            "redis+sentinel://u:p%40w@a:1,[::1],b/churn/2?sentinel_password=s%26t",
            StoreAddress(
                user="u",
                password="p@w",
                database=2,
                sentinels=(("a", 1), ("::1", 26379), ("b", 26379)),
                service="churn",
                sentinel_password="s&t",
            ),
        ),
    ],
)
def test_store_url_is_parsed(url: str, address: StoreAddress) -> None:
    """Host, port, database, user, password, socket and sentinels are read."""
    assert parse_store_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        *("http://h", "redis://", "h:6379", "redis://h/x", "redis://h:99999", "", "rediss://h"),
        *("redis+sentinel://h", "redis+sentinel:///churn", "redis+sentinel://h:x/churn"),
        *("redis+sentinel://h/churn/x", "redis+sentinel://u:p@/churn"),
        *("redis://h:0", "redis://u@h", "unix://host/s", "redis://h/0/1", "redis://h/db2"),
        *("redis+sentinel://:1/churn", "redis+sentinel://h:0/churn", "redis+sentinel://u@h/churn"),
    ],
)
def test_store_url_of_another_form_is_refused(url: str) -> None:
    """StoreUrlError is raised before any connection."""
    with pytest.raises(StoreUrlError):
        parse_store_url(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://h?db=2", "option 'db'"),
        ("unix:///s?db=2", "option 'db'"),
        ("redis://h?ssl_cert_reqs=none&namespace=a", "option 'ssl_cert_reqs'"),
        ("redis+sentinel://h/churn?db=2", "option 'db'"),
        ("redis://h?namespace=a&namespace=b", "an option twice"),
        ("redis://h#2", "a part after '#'"),
        ("redis://h?namespace=", "the namespace ''"),
        ("redis://h?namespace=A:b", "the namespace 'A:b'"),
    ],
)
def test_part_of_a_store_url_that_a_side_would_ignore_is_refused(url: str, words: str) -> None:
    """redis-py knows `?db=2`, and a gateway would have read database 0."""
    with pytest.raises(StoreUrlError) as refused:
        parse_store_url(url)
    assert words in str(refused.value)


def test_store_url_password_is_sent_and_never_shown() -> None:
    """It is in the handshake, but not in repr, the display name or errors."""
    address = parse_store_url("redis://u:hunter2@h/4")
    assert address.handshake_commands() == [
        (b"AUTH", b"u", b"hunter2"),
        (b"SELECT", b"4"),
        (b"PING",),
    ]
    assert "hunter2" not in repr(address) + address.display_name
    with pytest.raises(StoreUrlError) as refused:
        parse_store_url("http://u:hunter2@h:x")
    assert "hunter2" not in str(refused.value)


def test_encode_command_counts_bytes() -> None:
    """CR and LF may be in an argument."""
    assert encode_command((b"GET", b"a\r\n")) == b"*2\r\n$3\r\nGET\r\n$3\r\na\r\n\r\n"
