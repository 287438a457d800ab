"""The native door's Rust side, as Python sees it. Without it everything works on grpcio.

`ingress/src/python/io_thread.rs` is the other half of these signatures.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from gateway.columns import ModelShape
from gateway.settings import Settings

MetadataPairs = list[tuple[bytes, bytes]]
"""Metadata: names in lower case; "-bin" values still in base64."""


class IngressThread(Protocol):
    """turnout_ingress.Door: the I/O thread, seen from the event loop."""

    def listen(self, host: str, port: int) -> int:
        """Open host:port beside other processes; returns the port."""
        ...

    def listen_fd(self, fd: int) -> int:
        """Listen at a bound socket that was lent; copies *fd*. Returns the port."""
        ...

    def listen_unix(self, path: str) -> None:
        """Open a Unix socket."""
        ...

    def fileno(self) -> int:
        """Readable when there is something to hear."""
        ...

    def clear_wakeup(self) -> None:
        """Make it unreadable."""
        ...

    def configure(self, shapes: Sequence[ModelShape]) -> None:
        """Replace what is known of models."""
        ...

    def batch_ready(self) -> bool:
        """Whether calls wait that make a batch now; if not, the bell rings once they do."""
        ...

    def rows_inside(self) -> int:
        """Rows admitted and not yet answered."""
        ...

    def connections(self) -> int:
        """Connections open."""
        ...

    def pop_calls(self, rows_max: int, now_ns: int) -> tuple[Any, ...] | None:
        """Calls' columns, as bytes."""
        ...

    def send_replies(
        self,
        model: str,
        version: str,
        role: int,
        outputs: int,
        handles: object,
        holdout: bytes | None,
        prediction_ids: bytes,
        row_offsets: object,
        scores: object,
        row_flags: object,
        more: bool,
    ) -> None:
        """Send replies; arrays by the buffer protocol. more: do not wake the thread for these."""
        ...

    def refuse_calls(
        self, handles: object, code: int, message: str, pushback_ms: int | None
    ) -> None:
        """End these calls with one status."""
        ...

    def events(self) -> list[tuple[Any, ...]]:
        """What happened to raw calls since."""
        ...

    def refusals(self) -> list[tuple[str, int, str, int | None, int]]:
        """Refusals made at the door since: model, code, words, pushback_ms, how many."""
        ...

    def request_message(self, call: int) -> None:
        """Ask for a raw call's next message."""
        ...

    def set_headers(self, call: int, headers: MetadataPairs) -> None:
        """Set a raw call's response headers."""
        ...

    def send_message(self, call: int, message: bytes) -> None:
        """Send one of a raw call's messages; "flushed" follows."""
        ...

    def end_call(self, call: int, code: int, message: str, trailing: MetadataPairs) -> None:
        """End a raw call."""
        ...

    def stop_listening(self) -> None:
        """Take in who waits at the ports, and leave them."""
        ...

    def send_goaway(self) -> None:
        """Ask clients to leave."""
        ...

    def stop(self) -> None:
        """Close everything, and wait for the thread."""
        ...


class IngressLibrary(Protocol):
    """turnout_ingress."""

    def IngressThread(self, settings: Settings, methods: Mapping[str, str]) -> IngressThread:  # noqa: N802
        """Start the thread; each path's kind is predict, predict_stream, infer, unary or stream."""
        ...

    def decode(self, dialect: str, message: bytes, shape: ModelShape, settings: Settings) -> Any:  # noqa: ANN401
        """(rows, criticality, parts), or (code, words): for tests that hold it against ours.

        dialect  predict or infer.
        """
        ...


def load_native_library() -> IngressLibrary | None:
    """Return the module; None where it is not built for this Python."""
    try:
        return cast("IngressLibrary", importlib.import_module("turnout_ingress"))
    except ImportError:
        return None
