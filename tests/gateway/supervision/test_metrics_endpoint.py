"""Tests of the supervisor's pages: who may see which."""

import http.client
from collections.abc import Iterator
from contextlib import closing

import pytest

from access.rules import PAGES
from gateway.supervision.exposition import Report
from gateway.supervision.metrics_endpoint import MetricsEndpoint

TOKEN = "observers-token"


@pytest.fixture(params=[None, TOKEN])
def endpoint(request: pytest.FixtureRequest) -> Iterator[tuple[MetricsEndpoint, bool]]:
    """The pages without and with a token, and whether they need one."""
    pages = MetricsEndpoint("127.0.0.1", 0, lambda: Report(slots=1), request.param)
    with closing(pages):
        yield pages, request.param is not None


def status_of(endpoint: MetricsEndpoint, path: str, *headers: tuple[str, str]) -> int:
    """Return the status of a GET request."""
    with closing(http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=10)) as connection:
        names = [name for name, _ in headers]
        connection.putrequest("GET", path, skip_host="Host" in names)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status


@pytest.mark.parametrize("path", [*PAGES, "/unknown"])
def test_page_is_shown_to_who_has_the_token(
    endpoint: tuple[MetricsEndpoint, bool], path: str
) -> None:
    """Every page by: no token, a wrong one, two, the right one. Health and readiness are open."""
    pages, needs_token = endpoint
    shown = {"/healthz": 503, "/readyz": 503, "/unknown": 404}.get(path, 200)
    refused = 401 if needs_token and path not in ("/healthz", "/readyz") else shown
    right = ("Authorization", f"Bearer {TOKEN}")

    assert status_of(pages, path) == refused
    assert status_of(pages, path, ("Authorization", "Bearer wrong")) == refused
    assert status_of(pages, path, ("Authorization", TOKEN)) == refused
    assert status_of(pages, path, right, right) == refused
    assert status_of(pages, path, right) == shown
    assert status_of(pages, f"{path}?a=b", right) == shown


@pytest.mark.parametrize("path", sorted(PAGES))
def test_page_whose_rule_is_removed_is_not_shown(
    endpoint: tuple[MetricsEndpoint, bool], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Default deny: without its rule, the owner of the token does not see it either."""
    monkeypatch.delitem(PAGES, path)
    pages, needs_token = endpoint
    assert status_of(pages, path, ("Authorization", f"Bearer {TOKEN}")) == 404
    assert status_of(pages, path) == (401 if needs_token else 404)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil", ""]
)
def test_page_is_refused_under_a_name_that_is_not_loopback(
    endpoint: tuple[MetricsEndpoint, bool], host: str
) -> None:
    """A web page that gives its own name this address (DNS rebinding) reads nothing."""
    headers = (("Host", host), ("Authorization", f"Bearer {TOKEN}"))
    assert {status_of(endpoint[0], path, *headers) for path in PAGES} == {403}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:7", "LocalHost:7", "[::1]:7"])
def test_page_is_shown_under_the_names_of_loopback(
    endpoint: tuple[MetricsEndpoint, bool], host: str
) -> None:
    """With any port, because a tunnel may have another."""
    headers = (("Host", host), ("Authorization", f"Bearer {TOKEN}"))
    assert status_of(endpoint[0], "/metrics", *headers) == 200
