"""The HTTP server of the /metrics page. It answers on threads of its own and shares no lock."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

from access.observed_pages import refuse_foreign_host, refuse_other_token
from access.page_server import PageServer
from host.addresses import is_address, is_loopback
from monitoring.errors import MonitoringError

PATH = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CLIENT_IDLE_S_MAX = 5.0
"""The connection of a client that sends or reads nothing for this long is closed."""


@dataclass(frozen=True, slots=True)
class MetricsAddress:
    """Where the page is, and the bearer token that it needs; None: it needs none.

    address  host:port; port 0: any free port.

    Raises MonitoringError for what is no address, and for one beyond loopback without a token.
    """

    address: str
    token: str | None = None

    def __post_init__(self) -> None:
        if not is_address(self.address):
            raise MonitoringError(
                f"--metrics {self.address!r} is no host:port, such as 127.0.0.1:9465"
            )
        if not is_loopback(self.address) and self.token is None:
            raise MonitoringError(
                f"--metrics {self.address} is not loopback, and no token is given: others could "
                "read it; give --metrics-token-file, or listen on 127.0.0.1"
            )


class MetricsPage:
    """Answers GET /metrics until closed. OSError when the port is taken.

    text  returns the page, and is called for each request.
    """

    def __init__(self, where: MetricsAddress, text: Callable[[], bytes]) -> None:
        # The pages. Each request has a thread of its own.
        host, _, port = where.address.rpartition(":")
        on_loopback = is_loopback(where.address)

        class Page(BaseHTTPRequestHandler):
            timeout = CLIENT_IDLE_S_MAX

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                status, message = _refusal(path, self.headers, where.token, on_loopback)
                body = message.encode() if message else text()
                self.send_response(status)
                if status == HTTPStatus.UNAUTHORIZED:
                    self.send_header("WWW-Authenticate", "Bearer")
                self.send_header("Content-Type", "text/plain" if message else CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Log nothing for a request."""

        # Listen, and answer beside the loop of control.
        self._server = PageServer((host.strip("[]"), int(port)), Page)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="control-metrics", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop answering and close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _refusal(
    path: str, headers: Message, token: str | None, on_loopback: bool
) -> tuple[HTTPStatus, str]:
    """Return the status and why a request is refused; an empty text: it is not."""
    refused = refuse_foreign_host(headers) if on_loopback else None
    if refused is None and token is not None:
        refused = refuse_other_token(headers, token)
    if refused is not None:
        return refused.status, refused.text
    if path != PATH:
        return HTTPStatus.NOT_FOUND, f"the path is {PATH}\n"
    return HTTPStatus.OK, ""
