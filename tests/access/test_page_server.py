"""Tests of the HTTP server of pages."""

import socket
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler

import pytest

from access.page_server import PageServer


class Page(BaseHTTPRequestHandler):
    """Answers every GET without a body."""

    def do_GET(self) -> None:
        """Answer (BaseHTTPRequestHandler)."""
        self.send_response(204)
        self.end_headers()


@pytest.mark.parametrize(("host", "url"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])
def test_page_server_asks_no_name_server(
    host: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no name server answers, a question for the name of this host takes 10 to 20 s."""

    def refuse(*asked: object) -> str:
        raise AssertionError(asked)

    for name in ("getfqdn", "gethostbyaddr", "gethostname"):
        monkeypatch.setattr(socket, name, refuse)
    with PageServer((host, 0), Page) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with urllib.request.urlopen(f"http://{url}:{server.server_port}/") as answer:
            assert answer.status == 204
        thread.join()
