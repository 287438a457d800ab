"""Batches in, whole seconds out: each window counted once, in time order, whoever sent it."""

from dataclasses import dataclass, field
from statistics import median_low

from protos import window_pb2

NS = 1_000_000_000
CLOSE_DELAY_NS = 500_000_000
"""A second closes this long after its end; what comes later is counted and left out."""
GAP_WAIT_NS = 500_000_000
"""How long a batch waits for the ones before it, should a sender number around a gap."""
CATCH_UP_NS = 3 * NS
"""After a restart, nothing closes before the known senders have caught up, or this is over."""
SOURCE_FORGET_NS = 600 * NS
CLOCK_STEP_NS = 2 * NS
"""A sender's clock that seems so much further back than before was set back, or tells of old."""
FUTURE_MAX_NS = 60 * NS
"""Windows further in the future than this are of a clock that is wrong: counted, and left out."""


@dataclass(frozen=True, slots=True)
class ClosedSecond:
    """All windows of one model, second and revision, merged by being listed together."""

    second: int
    revision: int
    windows: tuple[window_pb2.Window, ...]


@dataclass(slots=True)
class _SourceProgress:
    sequence: int
    """Everything up to it has been delivered."""
    heard_ns: int
    early_batches: dict[int, window_pb2.WindowBatch] = field(default_factory=dict)
    gap_since_ns: int = 0
    offset_ns: int | None = None
    """Its clock less ours, as the quickest of its batches told; None: not told yet."""


def source_name(source: window_pb2.Source) -> str:
    """Return gateway/slot/boot id: one start of one worker."""
    return f"{source.gateway}/{source.slot}/{source.boot_id:016x}"


def split_by_model(
    batch: window_pb2.WindowBatch, models: set[str]
) -> dict[str, window_pb2.WindowBatch]:
    """Return what each of *models* is told by *batch*: its windows, all guards, the same number.

    With thirty rollouts under way each would otherwise look through the windows of the others.
    """
    windows: dict[str, list[window_pb2.Window]] = {model: [] for model in models}
    for window in batch.windows:
        if window.model in windows:
            windows[window.model].append(window)
    return {
        model: window_pb2.WindowBatch(
            source=batch.source,
            sequence=batch.sequence,
            windows=told,
            guards=batch.guards,
            sent_unix_ns=batch.sent_unix_ns,
        )
        for model, told in windows.items()
    }


class Inbox:
    """One model's windows. Pure: every instant is an argument.

    now_ns   the controller's monotonic clock.
    Windows carry the gateways' clocks. Their median, by `sent_unix_ns`, is the time by which
    seconds close: a controller whose own wall clock is off judges the same, and one gateway's
    clock that is ahead does not make all others late.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._sources: dict[str, _SourceProgress] = {}
        self._open_windows_by_second: dict[tuple[int, int], list[window_pb2.Window]] = {}
        self._offset_ns: int | None = None
        """The senders' median; None: not known, or to be taken anew."""
        self._catching_up: set[str] = set()
        self._caught_up_from_ns = 0
        self._resumed_ns = 0
        self.closed_second = 0
        self.late_windows = 0
        self.late_at_ns: int | None = None
        self.duplicate_batches = 0
        self.lost_batches = 0
        self.lost_at_ns: int | None = None

    def start_source_at(self, source: str, sequence: int, now_ns: int) -> None:
        """Take *source* as delivered up to *sequence*: what came before is not this rollout's."""
        self._sources[source] = _SourceProgress(sequence, now_ns)

    def begin_catch_up(self, resumed_unix_ns: int, now_ns: int) -> None:
        """After a restart: wait for the senders known from before, CATCH_UP_NS at most."""
        self._catching_up = set(self._sources)
        self._caught_up_from_ns = resumed_unix_ns - CLOSE_DELAY_NS
        self._resumed_ns = now_ns

    def restore_windows(self, windows: list[window_pb2.Window]) -> None:
        """Put back windows that were open when the checkpoint was written."""
        for window in windows:
            self._open_windows_by_second.setdefault((window.second, window.revision), []).append(
                window
            )

    @property
    def sequences(self) -> dict[str, int]:
        """Source -> everything up to here is merged."""
        return {source: sender.sequence for source, sender in self._sources.items()}

    @property
    def open_windows(self) -> list[window_pb2.Window]:
        """Windows merged but not yet closed, in time order."""
        return [
            window
            for key in sorted(self._open_windows_by_second)
            for window in self._open_windows_by_second[key]
        ]

    def accept(self, batch: window_pb2.WindowBatch, now_ns: int) -> list[window_pb2.WindowBatch]:
        """Take one batch; return those delivered by it, in order, each once ever.

        A sequence seen before is a duplicate, counted; one ahead of a gap waits GAP_WAIT_NS for it.
        """
        source = source_name(batch.source)
        sender = self._sources.get(source)
        if sender is None:
            sender = self._sources[source] = _SourceProgress(batch.sequence - 1, now_ns)
        sender.heard_ns = now_ns
        if batch.sequence <= sender.sequence or batch.sequence in sender.early_batches:
            self.duplicate_batches += 1
            return []
        self._note_clock(sender, batch.sent_unix_ns, now_ns)
        if not sender.early_batches:
            sender.gap_since_ns = now_ns
        sender.early_batches[batch.sequence] = batch
        if batch.sent_unix_ns >= self._caught_up_from_ns:
            self._catching_up.discard(source)
        return self._deliver(sender, now_ns)

    def _note_clock(self, sender: _SourceProgress, sent_unix_ns: int, now_ns: int) -> None:
        if not sent_unix_ns:
            return
        offset_ns, before_ns = sent_unix_ns - now_ns, sender.offset_ns
        if before_ns is None or offset_ns > before_ns or offset_ns < before_ns - CLOCK_STEP_NS:
            sender.offset_ns = offset_ns
            self._offset_ns = None

    def skip_gaps(self, now_ns: int) -> list[window_pb2.WindowBatch]:
        """Give up batches that never came, count them, and deliver what waited behind them."""
        delivered = []
        for sender in self._sources.values():
            if sender.early_batches and now_ns - sender.gap_since_ns >= GAP_WAIT_NS:
                first = min(sender.early_batches)
                self.lost_batches += first - sender.sequence - 1
                self.lost_at_ns = now_ns
                sender.sequence = first - 1
                delivered += self._deliver(sender, now_ns)
        return delivered

    def _deliver(self, sender: _SourceProgress, now_ns: int) -> list[window_pb2.WindowBatch]:
        delivered = []
        while (batch := sender.early_batches.pop(sender.sequence + 1, None)) is not None:
            sender.sequence += 1
            sender.gap_since_ns = now_ns
            delivered.append(batch)
            for window in batch.windows:
                if window.model == self._model:
                    self._add_window(window, now_ns)
        return delivered

    def _add_window(self, window: window_pb2.Window, now_ns: int) -> None:
        if window.second <= self.closed_second:
            if not window.outcomes:
                self.late_windows += 1
                self.late_at_ns = now_ns
                return
            # Outcomes are late by nature: what matters is the revision that drew their keys.
            window = _with_second(window, self.closed_second + 1)
        self._open_windows_by_second.setdefault((window.second, window.revision), []).append(window)

    def close_seconds(self, now_ns: int) -> list[ClosedSecond]:
        """Return the seconds that are over, by (second, revision); each is returned once."""
        limit = self._gateway_time_ns(now_ns)
        if limit is None:
            return []
        over_second = (limit - CLOSE_DELAY_NS) // NS - 1
        if self.closed_second > over_second + FUTURE_MAX_NS // NS:
            self.closed_second = over_second  # the only clock there was then was wrong
        self.closed_second = max(self.closed_second, over_second)
        for key in [
            one for one in self._open_windows_by_second if one[0] * NS > limit + FUTURE_MAX_NS
        ]:
            self.late_windows += len(self._open_windows_by_second.pop(key))
            self.late_at_ns = now_ns
        over = sorted(key for key in self._open_windows_by_second if key[0] <= self.closed_second)
        return [
            ClosedSecond(
                second, revision, tuple(self._open_windows_by_second.pop((second, revision)))
            )
            for second, revision in over
        ]

    def closes_in_ns(self, now_ns: int) -> int | None:
        """Return how long until a merged second closes; None: nothing is open."""
        limit = self._gateway_time_ns(now_ns)
        if not self._open_windows_by_second:
            return None
        if limit is None:
            return max(0, self._resumed_ns + CATCH_UP_NS - now_ns)
        first = min(second for second, _ in self._open_windows_by_second)
        return max(0, (first + 1) * NS + CLOSE_DELAY_NS - limit)

    def _gateway_time_ns(self, now_ns: int) -> int | None:
        """Return the gateways' time by now; None: not known, or senders are still catching up."""
        if self._catching_up and now_ns - self._resumed_ns < CATCH_UP_NS:
            return None
        self._catching_up.clear()
        if self._offset_ns is None:
            known = [one.offset_ns for one in self._sources.values() if one.offset_ns is not None]
            if not known:
                return None
            self._offset_ns = median_low(known)
        return now_ns + self._offset_ns

    def forget_silent_sources(self, now_ns: int) -> None:
        """Drop senders silent for ten minutes: workers long gone."""
        for source, sender in list(self._sources.items()):
            if now_ns - sender.heard_ns > SOURCE_FORGET_NS:
                del self._sources[source]
                self._offset_ns = None


def _with_second(window: window_pb2.Window, second: int) -> window_pb2.Window:
    moved = window_pb2.Window()
    moved.CopyFrom(window)
    moved.second = second
    return moved
