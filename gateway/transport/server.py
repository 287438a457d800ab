"""The interface of an ingress server. The grpcio server and the native server implement it.

A server turns bytes into columns of calls, and columns of replies into bytes. It owns connections,
decoding, the bound on rows inside (waiting or being scored) and cancellation. The pipeline knows a
server by this interface alone, and one test suite runs over both servers.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from grpc_health.v1 import health_pb2
from numpy.typing import NDArray

from gateway.caller import Caller
from gateway.columns import Calls, ModelShape, Replies
from gateway.ingress_choice import IngressChoice
from gateway.status import Refusal
from gateway.transport.call_queue import QueuedCall
from protos.predict_pb2 import PredictReply

UnaryMethod = Callable[[bytes, Caller], Awaitable[bytes]]
"""A method that scores nothing: request bytes and caller to reply bytes. Raises RefusedError."""

OnSingleCall = Callable[[QueuedCall], None]
"""Called with a call that is alone. It must not raise, and it must not wait."""

OnRefused = Callable[[str, Refusal, int], None]
"""Called with (model or "", refusal, number of calls) for calls that the server refused itself."""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """What an ingress server holds at one moment. None: this server does not know the number."""

    ingress: str
    rows_inside: int
    """Rows that are admitted and not answered yet."""
    rows_waiting: int | None
    """Rows that are admitted and not taken yet."""
    connections: int | None


class HandshakeRefusal(NamedTuple):
    """TLS handshakes that were refused for one reason."""

    reason: str
    """no_certificate, certificate_refused: the client's. client_refused: the client did not accept
    ours. no_common_protocol, not_tls, or other."""
    detail: str
    """The newest error in the words of the library, with what it knows of the client."""
    handshakes: int


class IngressServer(Protocol):
    """An ingress server. Every method is called on the event loop's thread."""

    kind: IngressChoice

    def configure(self, shapes: Mapping[str, ModelShape]) -> None:
        """Replace what the server knows of models. Calls for other models end NOT_FOUND."""
        ...

    async def wait_for_calls(self, on_single_call: OnSingleCall | None) -> None:
        """Return when calls should be taken as a batch now.

        on_single_call  gets each call that is the only one inside and has one row, at once and
                        without a turn of the event loop. None: such a call makes a batch, too.
        """
        ...

    def pop_calls(self, rows_max: int) -> Calls | None:
        """Return the calls that wait for the model whose oldest call has waited longest.

        They have at most *rows_max* rows, but a single call is never cut. None if no call waits.
        Cancelled calls are left out, and their rows are free already.
        """
        ...

    def send_reply(self, handle: int, reply: PredictReply) -> None:
        """Send the reply to a single call. It is dropped if the caller has gone."""
        ...

    def send_replies(self, replies: Replies, *, more: bool = False) -> None:
        """Send each reply. A reply is dropped if its caller has gone.

        more  other replies of the same batch follow at once and may go out together with these.
        """
        ...

    def refuse_calls(self, handles: NDArray[np.uint64], refusal: Refusal) -> None:
        """End these calls with one status."""
        ...

    async def listen(
        self, host: str, port: int, unix: str = "", lent_fds: Sequence[int] = ()
    ) -> int:
        """Listen on *port* (0 for a free one) and on a Unix socket at *unix*. Return the port.

        The host `localhost` is both 127.0.0.1 and ::1.

        lent_fds  descriptors of bound sockets to listen on instead (gateway.supervision.sockets).
        """
        ...

    async def show_health(self, ready: Mapping[str, bool]) -> None:
        """Set what grpc.health.v1 reports: each model's name, and "" for the server as a whole."""
        ...

    async def close(self, grace_s: float) -> None:
        """Stop listening, let clients reconnect elsewhere and finish the calls in flight."""
        ...

    def handshake_refusals(self) -> Sequence[HandshakeRefusal]:
        """Return the TLS handshakes that were refused since the last call, one for each reason."""
        ...

    def statistics(self) -> ServerStatistics:
        """Return a snapshot of what the server holds."""
        ...

    @property
    def rows_inside(self) -> int:
        """Number of rows that are admitted and not answered yet."""
        ...
