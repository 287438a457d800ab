"""The types of the native library, the Python module `turnout_ingress` that `ingress/` builds.

Its classes are written in `ingress/src/python/`. Without the library the gateway serves by grpcio.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from gateway.columns import ModelShape
from gateway.settings import Settings

MetadataPairs = list[tuple[bytes, bytes]]
"""Metadata of a call: names in lower case, values of "-bin" names in base64."""


class IngressThread(Protocol):
    """The I/O thread of the native server, called from the event loop."""

    def listen(self, host: str, port: int) -> int:
        """Listen on host:port with SO_REUSEPORT. Returns the port."""
        ...

    def listen_fd(self, fd: int) -> int:
        """Listen on the bound socket *fd*, which is duplicated. Returns the port."""
        ...

    def listen_unix(self, path: str) -> None:
        """Listen on a Unix socket at *path*."""
        ...

    def fileno(self) -> int:
        """Return a descriptor that is readable when calls, events or refusals wait."""
        ...

    def clear_wakeup(self) -> None:
        """Make the descriptor of `fileno` unreadable until the next event."""
        ...

    def configure(self, shapes: Sequence[ModelShape]) -> None:
        """Replace the shapes of all models. Calls of other models are refused with NOT_FOUND."""
        ...

    def set_callers(
        self,
        callers: Sequence[tuple[str, list[str] | None, list[str], list[int], tuple[int, int]]],
        tokens: Sequence[tuple[bytes, int, int]],
        names: Sequence[tuple[str, int]],
        verifies: bool,
    ) -> None:
        """Replace the callers. After the first time every call needs an identity.

        callers   by number - 1: name, models, models of which it may pin every version, [calls,
                  rows, bytes] a second, (connections, open calls). 0 in a bound: there is none.
        tokens    SHA-256 of a token, caller number, monotonic ns of its expiry.
        names     DNS or URI name of a client certificate, caller number.
        verifies  whether events "verify" ask for other tokens, (kind, 0, authorization header).
        """
        ...

    def token_verified(self, header: bytes, caller: int, expires_ns: int) -> None:
        """Answer an event "verify": the caller's number, or 0 for none, until *expires_ns*."""
        ...

    def caller_refusals(self) -> list[tuple[int, int, int]]:
        """Return new refusals for identity or quota: (caller number or 0, code, calls)."""
        ...

    def handshake_refusals(self) -> list[tuple[str, str, int]]:
        """Return refused TLS handshakes since the last call: (reason, newest error, number)."""
        ...

    def batch_ready(self) -> bool:
        """Return True if enough calls wait for a batch. If not, the thread wakes the loop later."""
        ...

    def rows_inside(self) -> int:
        """Return the number of rows that were admitted and are not answered."""
        ...

    def connections(self) -> int:
        """Return the number of open connections."""
        ...

    def pop_calls(self, rows_max: int, now_ns: int) -> tuple[Any, ...] | None:
        """Return the columns of waiting calls of one model as bytes; None when no call waits."""
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
        """Send the replies of calls; arrays are passed by the buffer protocol.

        more  other replies follow, so the thread is not woken for these.
        """
        ...

    def refuse_calls(
        self, handles: object, code: int, message: str, pushback_ms: int | None
    ) -> None:
        """End the calls of *handles* with the same status."""
        ...

    def events(self) -> list[tuple[Any, ...]]:
        """Return the events of raw calls since the last call of this method."""
        ...

    def refusals(self) -> list[tuple[str, int, str, int | None, int]]:
        """Return new refusals of the I/O thread: (model, code, message, pushback_ms, calls)."""
        ...

    def request_message(self, call: int) -> None:
        """Request the next message of a raw call; it comes as an event."""
        ...

    def set_headers(self, call: int, headers: MetadataPairs) -> None:
        """Set the response headers of a raw call."""
        ...

    def send_message(self, call: int, message: bytes) -> None:
        """Send a message of a raw call. The event "flushed" follows."""
        ...

    def end_call(self, call: int, code: int, message: str, trailing: MetadataPairs) -> None:
        """End a raw call with a status and trailing metadata."""
        ...

    def stop_listening(self) -> None:
        """Accept the connections that wait, and close the listening sockets."""
        ...

    def send_goaway(self) -> None:
        """Send GOAWAY on every connection."""
        ...

    def stop(self) -> None:
        """Close all connections, and wait until the thread has ended."""
        ...


class NativeTurn(Protocol):
    """The calls of one turn, in groups by model; turnout_ingress.Turn is one.

    A group is named by its index.
    """

    def groups(self) -> list[tuple[str, int]]:
        """Return the model and the number of calls of each group."""
        ...

    def columns(self, index: int) -> tuple[Any, ...]:
        """Return the columns of a group, as pop_calls of the thread does."""
        ...

    def assign(
        self, plans: Sequence[object | None], earliest_ns: int
    ) -> list[tuple[int, int] | None]:
        """Take a plan for each group; return the rows and the latest deadline of each.

        None: the group has no plan, or a call without a key, or one that pins a version, or one
        whose deadline is before *earliest_ns*.
        """
        ...

    def store_keys(self, members: Sequence[int]) -> Sequence[bytes]:
        """Return the store's keys of some groups, group by group and view by view.

        They are a turnout_ingress.StoreKeys, which features.online.reader sends as it is.
        """
        ...

    def read(
        self,
        members: Sequence[int],
        replies: Sequence[bytes | None],
        now_ms: int,
    ) -> None:
        """Take the replies to `store_keys`. *now_ms* is the time for ages and for columns."""
        ...

    def matrix(self, index: int) -> bytes:
        """Return the (R, W) float32 matrix of a group that was read, as bytes."""
        ...

    def read_flags(self, index: int) -> tuple[bytes, int]:
        """Return the (R,) uint32 flags of a group that was read, as bytes, and its broken rows."""
        ...

    def flagged(self, index: int) -> bool:
        """Whether a row of a group has a flag or was broken."""
        ...

    def score_native(self, members: Sequence[int]) -> list[bool | None]:
        """Score groups of native models; return whether all scores of each are finite.

        None: the group's model is not native.
        """
        ...

    def take_scores(self, index: int, scores: NDArray[np.float32]) -> bool:
        """Take the (R, K) scores of a group. False: some number is not finite."""
        ...


class AnswerRecord(NamedTuple):
    """Answers that the I/O thread gave by one plan within one second."""

    plan: int
    """The number of the plan."""
    unix_ns: int
    """When the first of them was given."""
    group_rows: list[int]
    """Rows of each group of calls that was answered at once."""
    rows: int
    """Rows of all groups."""
    flagged: list[int]
    """Rows with each turnout.v1.RowFlag, by the number of its bit."""
    broken: int
    """Stored rows with a wrong hash or id."""
    late_groups: int
    """Groups whose rows the store did not return in time."""
    columns: object
    """turnout_ingress.AnsweredGroup."""


Thread = IngressThread
"""The name, where a method has it too."""


class IngressLibrary(Protocol):
    """The module `turnout_ingress`, as far as the native server and tests use it."""

    def IngressThread(self, settings: Settings, methods: Mapping[str, str]) -> IngressThread:  # noqa: N802
        """Start the thread. *methods* maps a path to its kind.

        Kinds are predict, predict_stream, infer, unary and stream.
        """
        ...

    def ModelPlan(  # noqa: N802
        self,
        shape: tuple[int, int],
        evidence_prefix: bytes,
        holdout: tuple[bytes, int] | None,
        views: Sequence[tuple[object, int]],
        request_time: bool,
        feature_limits: tuple[int, bool],
        outputs: int,
        body: bytes,
        rule: tuple[bool, float],
        sealed: bool,
        shown: tuple[str, int],
        native: object | None,
        columns: Sequence[int] | None,
        breadcrumb: tuple[object, int, int] | None,
    ) -> object:
        """Return what is known of a model to answer its usual calls.

        The arguments are the fields of Plan in ingress/src/accel/plan.rs, in their order.

        holdout         bytes in front of a key, and basis points. None: the model has no holdout.
        views           NativeViewRows, and the position of the entity among a row's ids.
        feature_limits  ns of a full batch's read, and whether calls are refused without it.
        rule            how prediction ids carry scores (journal.score_code.ScoreRule).
        shown           label and role, as callers see them.
        breadcrumb      SharedPage, and the two bytes of it that are 1 while the event loop or the
                        I/O thread scores. None: runs are not marked.
        """
        ...

    def SharedPage(self, descriptor: int, length: int) -> object:  # noqa: N802
        """Map a page of gateway.isolation.breadcrumbs, so that plans can mark their runs in it.

        The caller may close *descriptor* afterwards.
        """
        ...

    def pop_turn(self, thread: Thread, rows_max: int, now_ns: int) -> NativeTurn | None:
        """Return the waiting calls of all models, up to *rows_max* rows. None: no call waits."""
        ...

    def answer_groups(
        self,
        thread: Thread,
        turn: NativeTurn,
        members: Sequence[int],
        keys: tuple[bytes, bytes, bytes],
        first: int,
        times: tuple[int, int, int],
    ) -> list[object]:
        """Answer groups that were read and scored; return the columns of each for its record.

        keys   the cluster's key, the masking key and the sealing key of prediction ids.
        first  the sequence number of the first call.
        times  Unix ns of the answer, Unix ns of the read, monotonic ns of the answer.
        """
        ...

    def set_id_keys(self, thread: Thread, keys: tuple[bytes, bytes, bytes]) -> None:
        """Set the keys of prediction ids: the cluster's key, the masking key and the sealing key.

        Until the first call of this method, the thread answers no call by itself.
        """
        ...

    def publish_plan(self, thread: Thread, model: str, plan: tuple[int, object] | None) -> None:
        """Answer usual calls of *model* by (number, ModelPlan); None: by Python only.

        The plan before answers no call once this returns. A plan without a native model counts as
        None.
        """
        ...

    def reserve_ids(self, thread: Thread, count: int) -> int:
        """Return the first of *count* sequence numbers of prediction ids, which wrap at 2^32."""
        ...

    def records_due(self, thread: Thread) -> bool:
        """Return True if records of answers of the thread have waited for 20 ms."""
        ...

    def take_records(self, thread: Thread) -> list[tuple[Any, ...]]:
        """Return the records of the thread's answers that wait: the fields of AnswerRecord."""
        ...

    def use_store(self, thread: Thread, fd: int) -> None:
        """Read the store over *fd*, which is duplicated. Its handshake has been done."""
        ...

    def leave_store(self, thread: Thread) -> None:
        """Read no store any more. Calls that wait for it become a batch."""
        ...

    def store_state(self, thread: Thread) -> tuple[bool, str]:
        """Return whether the thread has a connection to a store, and why the last one ended."""
        ...

    def decode(self, dialect: str, message: bytes, shape: ModelShape, settings: Settings) -> Any:  # noqa: ANN401
        """Decode a message: (rows, criticality, parts), or (code, message) of a refusal.

        Tests compare it with the decoder in Python.

        dialect  predict or infer.
        """
        ...


def load_native_library() -> IngressLibrary | None:
    """Return the native library; None when it is not built for this Python."""
    try:
        return cast("IngressLibrary", importlib.import_module("turnout_ingress"))
    except ImportError:
        return None
