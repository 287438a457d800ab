"""The HTTP server of pages such as /metrics: a thread for each request, and no question to DNS.

http.server asks for the full name of its address when it binds, and shows the name nowhere. For
0.0.0.0 and :: it asks for the name of this host. Where no name server answers, that takes 10 to
20 s, and the process that starts the server does nothing else meanwhile.
"""

import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer


class PageServer(ThreadingHTTPServer):
    """Listens on IPv4, on IPv6, or with the host `::` on both."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], page: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, page)

    def server_bind(self) -> None:
        """Bind, and take the address for the name (HTTPServer)."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
