"""The supervisor's HTTP endpoint on loopback: /metrics, /healthz, /workers and /statistics.

It runs on threads of its own. It reads reports that never change, so it shares no lock with the
supervisor's loop, and a slow reader delays neither the loop nor other readers.
"""

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gateway.supervision.exposition import Exposition, Report

CLIENT_IDLE_S_MAX = 5.0
"""The connection of a client that sends or reads nothing for this long is closed."""


class MetricsEndpoint:
    """Answers GET requests until closed. An unknown path is 404, another method 501."""

    def __init__(self, host: str, port: int, report: Callable[[], Report]) -> None:
        """Bind and start to answer; OSError when the port is taken.

        port    0 picks a free one; `port` tells which.
        report  called for each request; returns the newest report.
        """
        exposition = Exposition(report)

        class Page(BaseHTTPRequestHandler):
            timeout = CLIENT_IDLE_S_MAX

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                status, content_type, body = _respond(path, exposition, report())
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Log nothing for a request."""

        self._server = ThreadingHTTPServer((host, port), Page)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="metrics-endpoint", daemon=True
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


def _respond(path: str, exposition: Exposition, report: Report) -> tuple[HTTPStatus, str, bytes]:
    """Return (status, content type, body) for *path*."""
    if path == "/metrics":
        content_type = "text/plain; version=0.0.4; charset=utf-8"
        return HTTPStatus.OK, content_type, exposition.text()
    if path == "/healthz":
        text = f"{report.serving} of {report.slots} slots serving\n"
        status = HTTPStatus.OK if report.serving else HTTPStatus.SERVICE_UNAVAILABLE
        return status, "text/plain", text.encode()
    if path in ("/workers", "/statistics"):
        rows = report.workers if path == "/workers" else report.statistics
        return HTTPStatus.OK, "application/json", json.dumps([dict(row) for row in rows]).encode()
    text = "the paths are /metrics, /healthz, /workers and /statistics\n"
    return HTTPStatus.NOT_FOUND, "text/plain", text.encode()
