"""Turns the batches of many gateways into whole seconds, each window counted once.

Gateways send batches again until they are acknowledged, and their batches may arrive late or out
of order. The inbox drops duplicates, restores the order of each source, and closes a second when
every gateway has had time to send its windows of that second.

Pure: every instant is an argument. `now_ns` is the controller's monotonic clock.
"""

from dataclasses import dataclass, field
from statistics import median_low

from protos import window_pb2

NS = 1_000_000_000
CLOSE_DELAY_NS = 500_000_000
"""A second closes this long after its end. Windows that come later are counted as late and left
out."""
GAP_WAIT_NS = 500_000_000
"""How long a batch waits for the missing batches before it."""
CATCH_UP_NS = 3 * NS
"""After a restart or a pause of the controller, nothing closes before the known sources have caught
up or this time is over."""
SOURCE_FORGET_NS = 600 * NS
CLOCK_STEP_NS = 2 * NS
"""If a source's clock jumps back by more than this, it is a clock change and no network delay."""
FUTURE_MAX_NS = 60 * NS
"""Windows further in the future than this come from a wrong clock. They count as late."""


@dataclass(frozen=True, slots=True)
class ClosedSecond:
    """All windows of one model, second and revision. Consumers add them up."""

    second: int
    revision: int
    windows: tuple[window_pb2.Window, ...]


@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """One source of windows, for debugging."""

    source: str
    sequence: int
    """All batches up to this number are delivered."""
    batches_waiting: int
    """Batches behind a gap in the sequence numbers."""
    silent_ns: int
    """Time since its newest batch."""
    clock_offset_ns: int | None
    """Its wall clock minus the controller's monotonic clock; None: no batch said its time."""


@dataclass(frozen=True, slots=True)
class InboxStatistics:
    """A snapshot of an inbox, for debugging."""

    model: str
    closed_second: int
    """Unix second up to which everything is closed; 0: nothing closed so far."""
    open_seconds: int
    """Pairs of second and revision that have windows and are not closed."""
    windows_waiting: int
    """Windows in the open seconds."""
    late_windows: int
    lost_batches: int
    duplicate_batches: int
    catching_up: tuple[str, ...]
    """Sources that the inbox waits for after a restart or a pause of the controller."""
    sources: tuple[SourceStatistics, ...]


@dataclass(slots=True)
class _SourceProgress:
    sequence: int
    """All batches up to this number are delivered."""
    heard_ns: int
    early_batches: dict[int, window_pb2.WindowBatch] = field(default_factory=dict)
    """Batches behind a gap, by sequence number."""
    gap_since_ns: int = 0
    offset_ns: int | None = None
    """Its clock minus ours, by its quickest batch; None: no batch said its time so far, or the
    controller does not trust its clock."""


def source_name(source: window_pb2.Source) -> str:
    """Return gateway/slot/boot id, which names one start of one worker."""
    return f"{source.gateway}/{source.slot}/{source.boot_id:016x}"


def split_by_model(
    batch: window_pb2.WindowBatch, models: set[str]
) -> dict[str, window_pb2.WindowBatch]:
    """Return for each of *models* a batch with its windows, all guards and the same number.

    With thirty rollouts under way each inbox would otherwise look through the windows of all
    models.
    """
    windows_by_model: dict[str, list[window_pb2.Window]] = {model: [] for model in models}
    for window in batch.windows:
        if window.model in windows_by_model:
            windows_by_model[window.model].append(window)
    return {
        model: window_pb2.WindowBatch(
            source=batch.source,
            sequence=batch.sequence,
            windows=windows,
            guards=batch.guards,
            sent_unix_ns=batch.sent_unix_ns,
            clock_unix_ns=batch.clock_unix_ns,
        )
        for model, windows in windows_by_model.items()
    }


class Inbox:
    """The windows of one model.

    Windows carry the time of the gateways' clocks. Seconds close by the median of these clocks
    (`clock_unix_ns` of each source). So a controller whose wall clock is wrong judges the same, and
    one gateway whose clock is ahead does not make the windows of all others late.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._sources: dict[str, _SourceProgress] = {}
        self._open_windows_by_second: dict[tuple[int, int], list[window_pb2.Window]] = {}
        """(second, revision) -> windows that were delivered and are not closed."""
        self._offset_ns: int | None = None
        """Median of the sources' clock offsets; None: to be computed."""
        self._catching_up: set[str] = set()
        self._caught_up_from_ns = 0
        self._resumed_ns = 0
        self.closed_second = 0
        """Unix second up to which everything is closed."""
        self.late_windows = 0
        self.late_at_ns: int | None = None
        self.duplicate_batches = 0
        self.lost_batches = 0
        self.lost_at_ns: int | None = None

    def start_source_at(self, source: str, sequence: int, now_ns: int) -> None:
        """Count only batches of *source* after *sequence*."""
        self._sources[source] = _SourceProgress(sequence, now_ns)

    def begin_catch_up(self, resumed_unix_ns: int, now_ns: int) -> None:
        """Wait for the known sources before anything closes, because the controller restarted.

        A source has caught up when it sent a batch after the newest second that is over at
        *resumed_unix_ns*.
        """
        self._catching_up = set(self._sources)
        self._caught_up_from_ns = (resumed_unix_ns - CLOSE_DELAY_NS) // NS * NS
        self._resumed_ns = now_ns

    def wait_for_sources(self, now_ns: int) -> None:
        """After the controller stood still, wait for the sources before anything closes.

        A source is waited for if its clock is trusted and it sent until the pause began: a worker
        that is gone sends nothing. The wait takes CATCH_UP_NS at most.
        """
        gateway_time_ns = self._gateway_time_ns(now_ns)
        if gateway_time_ns is None:
            return  # nothing closes anyway
        self.begin_catch_up(gateway_time_ns, now_ns)
        trusted = {
            source: known.heard_ns
            for source, known in self._sources.items()
            if known.offset_ns is not None
        }
        newest_ns = max(trusted.values(), default=0)
        self._catching_up = {
            source for source, heard_ns in trusted.items() if heard_ns >= newest_ns - CATCH_UP_NS
        }

    def restore_windows(self, windows: list[window_pb2.Window]) -> None:
        """Restore the windows that were open when a checkpoint was written."""
        for window in windows:
            self._open_windows_by_second.setdefault((window.second, window.revision), []).append(
                window
            )

    @property
    def sequences(self) -> dict[str, int]:
        """Source -> the number up to which its batches are delivered."""
        return {source: progress.sequence for source, progress in self._sources.items()}

    @property
    def open_windows(self) -> list[window_pb2.Window]:
        """Windows that were delivered and are not closed, ordered by second and revision."""
        return [
            window
            for key in sorted(self._open_windows_by_second)
            for window in self._open_windows_by_second[key]
        ]

    def statistics(self, now_ns: int) -> InboxStatistics:
        """Return a snapshot of the inbox; it changes nothing."""
        return InboxStatistics(
            model=self._model,
            closed_second=self.closed_second,
            open_seconds=len(self._open_windows_by_second),
            windows_waiting=sum(map(len, self._open_windows_by_second.values())),
            late_windows=self.late_windows,
            lost_batches=self.lost_batches,
            duplicate_batches=self.duplicate_batches,
            catching_up=tuple(sorted(self._catching_up)),
            sources=tuple(
                SourceStatistics(
                    source=source,
                    sequence=progress.sequence,
                    batches_waiting=len(progress.early_batches),
                    silent_ns=now_ns - progress.heard_ns,
                    clock_offset_ns=progress.offset_ns,
                )
                for source, progress in sorted(self._sources.items())
            ),
        )

    def accept(self, batch: window_pb2.WindowBatch, now_ns: int) -> list[window_pb2.WindowBatch]:
        """Accept one batch. Return the batches that can be delivered now, in order, each once.

        A batch that was delivered or is waiting already is counted as a duplicate. A batch behind
        a gap in the numbers waits GAP_WAIT_NS for the missing ones.
        """
        source = source_name(batch.source)
        progress = self._sources.get(source)
        if progress is None:
            progress = self._sources[source] = _SourceProgress(batch.sequence - 1, now_ns)
        progress.heard_ns = now_ns
        if batch.sequence <= progress.sequence or batch.sequence in progress.early_batches:
            self.duplicate_batches += 1
            return []
        self._note_clock(progress, batch.clock_unix_ns or batch.sent_unix_ns, now_ns)
        if not progress.early_batches:
            progress.gap_since_ns = now_ns
        progress.early_batches[batch.sequence] = batch
        if batch.sent_unix_ns >= self._caught_up_from_ns:
            self._catching_up.discard(source)
        return self._deliver(progress, now_ns)

    def _note_clock(self, progress: _SourceProgress, clock_unix_ns: int, now_ns: int) -> None:
        """Update the source's clock offset.

        The largest offset is that of the quickest batch, so a smaller offset is network delay. An
        offset that is smaller by more than CLOCK_STEP_NS is a clock that was set back.
        """
        if not clock_unix_ns:
            return
        offset_ns, before_ns = clock_unix_ns - now_ns, progress.offset_ns
        if before_ns is None or offset_ns > before_ns or offset_ns < before_ns - CLOCK_STEP_NS:
            progress.offset_ns = offset_ns
            self._offset_ns = None

    def ignore_clock_of(self, source: str) -> None:
        """Forget the clock of *source* until its next batch that says its time."""
        progress = self._sources.get(source)
        if progress is not None:
            progress.offset_ns = None
            self._offset_ns = None

    def skip_gaps(self, now_ns: int) -> list[window_pb2.WindowBatch]:
        """Count batches that never came as lost. Return the batches that waited behind them."""
        delivered = []
        for progress in self._sources.values():
            if progress.early_batches and now_ns - progress.gap_since_ns >= GAP_WAIT_NS:
                first = min(progress.early_batches)
                self.lost_batches += first - progress.sequence - 1
                self.lost_at_ns = now_ns
                progress.sequence = first - 1
                delivered += self._deliver(progress, now_ns)
        return delivered

    def _deliver(self, progress: _SourceProgress, now_ns: int) -> list[window_pb2.WindowBatch]:
        delivered = []
        while (batch := progress.early_batches.pop(progress.sequence + 1, None)) is not None:
            progress.sequence += 1
            progress.gap_since_ns = now_ns
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
            # Outcomes are reported long after their prediction. Only the revision that assigned
            # their keys matters, so they count in the next second.
            window = _with_second(window, self.closed_second + 1)
        self._open_windows_by_second.setdefault((window.second, window.revision), []).append(window)

    def close_seconds(self, now_ns: int) -> list[ClosedSecond]:
        """Return the seconds that are over, ordered by second and revision, each once."""
        gateway_time_ns = self._gateway_time_ns(now_ns)
        if gateway_time_ns is None:
            return []
        over_second = (gateway_time_ns - CLOSE_DELAY_NS) // NS - 1
        # If the first clock was far ahead, closed_second is wrong: go back to the present.
        if self.closed_second > over_second + FUTURE_MAX_NS // NS:
            self.closed_second = over_second
        self.closed_second = max(self.closed_second, over_second)
        # Drop windows of a clock that is far ahead.
        future = [
            key
            for key in self._open_windows_by_second
            if key[0] * NS > gateway_time_ns + FUTURE_MAX_NS
        ]
        for key in future:
            self.late_windows += len(self._open_windows_by_second.pop(key))
            self.late_at_ns = now_ns
        # Close what is over.
        over = sorted(key for key in self._open_windows_by_second if key[0] <= self.closed_second)
        return [
            ClosedSecond(
                second, revision, tuple(self._open_windows_by_second.pop((second, revision)))
            )
            for second, revision in over
        ]

    def closes_in_ns(self, now_ns: int) -> int | None:
        """Return the time until the first open second closes; None: no second is open."""
        gateway_time_ns = self._gateway_time_ns(now_ns)
        if not self._open_windows_by_second:
            return None
        if gateway_time_ns is None:
            return max(0, self._resumed_ns + CATCH_UP_NS - now_ns)
        first = min(second for second, _ in self._open_windows_by_second)
        return max(0, (first + 1) * NS + CLOSE_DELAY_NS - gateway_time_ns)

    def _gateway_time_ns(self, now_ns: int) -> int | None:
        """Return the gateways' time, Unix ns; None: not known, or sources are catching up."""
        if self._catching_up and now_ns - self._resumed_ns < CATCH_UP_NS:
            return None
        self._catching_up.clear()
        if self._offset_ns is None:
            offsets = [
                progress.offset_ns
                for progress in self._sources.values()
                if progress.offset_ns is not None
            ]
            if not offsets:
                return None
            self._offset_ns = median_low(offsets)
        return now_ns + self._offset_ns

    def forget_silent_sources(self, now_ns: int) -> None:
        """Drop sources that were silent for ten minutes: their workers are gone."""
        for source, progress in list(self._sources.items()):
            if now_ns - progress.heard_ns > SOURCE_FORGET_NS:
                del self._sources[source]
                self._offset_ns = None


def _with_second(window: window_pb2.Window, second: int) -> window_pb2.Window:
    moved = window_pb2.Window()
    moved.CopyFrom(window)
    moved.second = second
    return moved
