"""The supervisor's HTTP endpoint: /metrics, /healthz, /readyz, /workers and /statistics.

/healthz and /readyz are open. The others need the observer's token, where the settings name one
(access/rules.py). On loopback, a request for another host name is refused: a page in somebody's
browser could reach the port under a name of its own.

It runs on threads of its own. It reads reports that never change, so it shares no lock with the
supervisor's loop, and a slow reader delays neither the loop nor other readers.
"""

import json
import logging
import threading
from collections.abc import Callable
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

from access.identities import OBSERVER
from access.observed_pages import PageRefusal, refuse_foreign_host, refuse_other_token
from access.page_server import PageServer
from access.rules import PAGES
from gateway.supervision.exposition import Exposition, Report
from host.addresses import hosts_to_listen_at, is_loopback

CLIENT_IDLE_S_MAX = 5.0
"""The connection of a client that sends or reads nothing for this long is closed."""

log = logging.getLogger(__name__)

Answer = tuple[HTTPStatus, str, bytes]
"""Status, content type and body."""


class MetricsEndpoint:
    """Answers GET requests until closed. An unknown path is 404, another method 501.

    Without a valid token, where one is needed, a page that exists and one that does not are 401.
    """

    def __init__(
        self, host: str, port: int, report: Callable[[], Report], token: str | None = None
    ) -> None:
        """Bind and start to answer; OSError when the port is taken.

        host    `localhost` is both 127.0.0.1 and ::1.
        port    0 picks a free one; `port` tells which.
        report  called for each request; returns the newest report.
        token   the bearer token that every page but /healthz and /readyz asks for; None: no page
                asks.
        """
        # The pages. Each request has a thread of its own.
        exposition = Exposition(report)
        on_loopback = is_loopback(f"{host}:0")

        class Page(BaseHTTPRequestHandler):
            timeout = CLIENT_IDLE_S_MAX

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                refusal = _refusal(path, self.headers, token, on_loopback=on_loopback)
                status, content_type, body = refusal or _respond(path, exposition, report())
                self.send_response(status)
                if status == HTTPStatus.UNAUTHORIZED:
                    self.send_header("WWW-Authenticate", "Bearer")
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Log nothing for a request."""

        # Listen at each address of the host, and answer beside the supervisor's loop.
        self.port = port
        """The TCP port that it listens on."""
        self._servers: list[PageServer] = []
        self._threads: list[threading.Thread] = []
        try:
            for name in hosts_to_listen_at(host):
                self._servers.append(PageServer((name, self.port), Page))
                self.port = int(self._servers[-1].server_address[1])
        except OSError:
            self.close()
            raise
        # Each server has a thread, which ends with it.
        for server in self._servers:
            thread = threading.Thread(
                target=_serve, args=(server,), name="metrics-endpoint", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop answering and close the port."""
        for server, _ in zip(self._servers, self._threads, strict=False):
            server.shutdown()
        for server in self._servers:
            server.server_close()
        for thread in self._threads:
            thread.join()


def _serve(server: PageServer) -> None:
    """Answer until the server is shut down. If that fails, its port is closed: probes then fail."""
    try:
        server.serve_forever(0.1)
    except Exception:
        log.critical("the pages have stopped; restart the gateway", exc_info=True)
        server.server_close()


def _refusal(path: str, headers: Message, token: str | None, *, on_loopback: bool) -> Answer | None:
    """Return the answer to a request that is refused; None: it may see the page."""
    refused = refuse_foreign_host(headers) if on_loopback else None
    rule = PAGES.get(path)
    # A path without a rule is refused like one with it, so that nobody learns which pages exist.
    if refused is None and token is not None and (rule is None or not rule.open):
        refused = refuse_other_token(headers, token)
        if refused is None and rule is not None and OBSERVER not in rule.roles:
            refused = PageRefusal(HTTPStatus.UNAUTHORIZED, "this page is not for the observer\n")
    return None if refused is None else (refused.status, "text/plain", refused.text.encode())


def _respond(path: str, exposition: Exposition, report: Report) -> Answer:
    """Return (status, content type, body) for *path*; a page without a rule is not shown."""
    if path not in PAGES:
        text = f"the paths are {', '.join(PAGES)}\n"
        return HTTPStatus.NOT_FOUND, "text/plain", text.encode()
    if path == "/metrics":
        content_type = "text/plain; version=0.0.4; charset=utf-8"
        return HTTPStatus.OK, content_type, exposition.text()
    if path == "/healthz":
        text = (
            f"{report.serving} of {report.slots} slots serving, {report.connected} of them "
            "connected to the registry\n"
        )
        status = HTTPStatus.OK if report.serving else HTTPStatus.SERVICE_UNAVAILABLE
        return status, "text/plain", text.encode()
    if path == "/readyz":
        ready = report.serving > 0 and not report.leaving
        text = "ready\n" if ready else "not ready: it stops\n" if report.leaving else "not ready\n"
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return status, "text/plain", text.encode()
    rows = report.workers if path == "/workers" else report.statistics
    return HTTPStatus.OK, "application/json", json.dumps([dict(row) for row in rows]).encode()
