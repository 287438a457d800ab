"""/metrics, /healthz and /workers: the supervisor's loopback page, on a thread of its own.

It reads reports that are never changed after they are made, so it shares no lock with the loop
and a slow reader delays nobody.
"""

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gateway.supervision.exposition import Exposition, Report

CLIENT_IDLE_S_MAX = 5.0
"""A client that sends or reads nothing for this long is left."""


class MetricsEndpoint:
    """Serves until closed. GET only; anything else is 404 or 501."""

    def __init__(self, host: str, port: int, report: Callable[[], Report]) -> None:
        """Bind at once, so that *port* 0 is a number from here on; OSError when it is taken."""
        exposition = Exposition(report)

        class Page(BaseHTTPRequestHandler):
            timeout = CLIENT_IDLE_S_MAX

            def do_GET(self) -> None:
                status, kind, body = _respond(self.path.partition("?")[0], exposition, report())
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Nothing a call."""

        self._server = ThreadingHTTPServer((host, port), Page)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="observe", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop answering and give the port back."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _respond(path: str, exposition: Exposition, report: Report) -> tuple[HTTPStatus, str, bytes]:
    """Return (status, content type, body) for *path*."""
    if path == "/metrics":
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return HTTPStatus.OK, kind, exposition.text()
    if path == "/healthz":
        words = f"{report.serving} of {report.slots} slots serving\n"
        status = HTTPStatus.OK if report.serving else HTTPStatus.SERVICE_UNAVAILABLE
        return status, "text/plain", words.encode()
    if path == "/workers":
        rows = [dict(row) for row in report.workers]
        return HTTPStatus.OK, "application/json", json.dumps(rows).encode()
    return HTTPStatus.NOT_FOUND, "text/plain", b"here are /metrics, /healthz and /workers\n"
