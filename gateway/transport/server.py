"""Which front door a worker opens: the native one where it is built, or grpcio's."""

from collections.abc import Mapping
from typing import Protocol

from gateway.clock import Clock
from gateway.columns import Ingress
from gateway.ingress_choice import IngressChoice, check_built
from gateway.internal_error_log import InternalErrorLog
from gateway.native_library import load_native_library
from gateway.predict.single_call import SingleCallPath
from gateway.settings import Settings
from gateway.transport.grpcio.server import GrpcioServer, OnRefused, UnaryMethod
from gateway.transport.native.server import NativeServer


class IngressServer(Ingress, Protocol):
    """An ingress that can be opened and closed."""

    kind: IngressChoice
    """Which of the two."""

    single_call: SingleCallPath | None
    """Answers a call that is alone without making columns of it; the core's, set once."""

    async def listen(self, host: str, port: int, unix: str = "", lent_fd: int | None = None) -> int:
        """Open *port* (0: a free one), and a Unix socket at *unix*; returns the port.

        lent  a bound socket's descriptor that may be listened at instead
              (gateway.supervision.sockets).
        """
        ...

    async def show_health(self, ready: Mapping[str, bool]) -> None:
        """Set what grpc.health.v1 says."""
        ...

    async def close(self, grace_s: float) -> None:
        """Leave the port, and finish what is in flight."""
        ...

    @property
    def rows_inside(self) -> int:
        """Rows admitted and not yet answered."""
        ...


def create_server(
    settings: Settings,
    clock: Clock,
    error_log: InternalErrorLog,
    on_refused: OnRefused,
    methods: Mapping[str, UnaryMethod],
) -> IngressServer:
    """Build the door that settings.ingress names; SettingsError where it is not built."""
    module = None if settings.ingress == IngressChoice.GRPCIO else load_native_library()
    check_built(settings.ingress, available=module is not None)
    if module is not None:
        return NativeServer(module, settings, clock, error_log, on_refused, methods)
    return GrpcioServer(settings, clock, error_log, on_refused, methods)
