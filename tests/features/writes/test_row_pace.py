"""Tests of RowPace on a clock that the test owns."""

from itertools import pairwise

import pytest

from features.writes.row_pace import RowPace


class SlowWriter:
    """Writes rows on a clock of its own; each part takes *part_s*."""

    def __init__(self, part_s: float) -> None:
        self.now = 100.0
        self._part_s = part_s
        self.written: list[tuple[float, float, int]] = []
        """(begin, end, rows) of each part."""

    def sleep(self, seconds: float) -> None:
        """Move the clock, as time.sleep would."""
        assert seconds > 0
        self.now += seconds

    def write(self, pace: RowPace, rows: int) -> None:
        """Write *rows* rows in the parts that the pace allows."""
        while rows:
            part = pace.begin(rows)
            began = self.now
            self.now += self._part_s
            pace.end(part)
            self.written.append((began, self.now, part))
            rows -= part


def most_in_a_second(parts: list[tuple[float, float, int]]) -> int:
    """The most rows of parts that may lie in one second, wherever in each part its rows lie."""
    # The last part in a second began in it; the others ended less than a second before that.
    return max(
        sum(rows for _, other_end, rows in parts[:index] if other_end > began - 1.0) + part
        for index, (began, _, part) in enumerate(parts)
    )


@pytest.mark.parametrize("bound", [1, 7, 19, 100, 1_999])
@pytest.mark.parametrize("part_s", [0.0, 0.03, 0.4])
def test_no_second_has_more_rows_than_the_bound(bound: int, part_s: float) -> None:
    """Two editions of odd sizes share one pace."""
    writer = SlowWriter(part_s)
    pace = RowPace(bound, clock=lambda: writer.now, sleep=writer.sleep)
    writer.write(pace, 2 * bound + 3)
    writer.write(pace, bound + 1)
    assert sum(rows for *_, rows in writer.written) == 3 * bound + 4
    assert most_in_a_second(writer.written) <= bound


def test_rows_are_spread_over_the_second() -> None:
    """A bound of 1,000 is reached, in parts of 100 that are a tenth of a second apart."""
    writer = SlowWriter(0.0)
    writer.write(RowPace(1_000, clock=lambda: writer.now, sleep=writer.sleep), 5_000)
    begins = [began for began, *_ in writer.written]
    assert [rows for *_, rows in writer.written] == [100] * 50
    assert all(0.0999 < later - earlier < 0.11 for earlier, later in pairwise(begins))


def test_without_a_bound_all_rows_are_written_at_once() -> None:
    """The whole part is allowed, and nothing waits."""
    pace = RowPace(sleep=lambda _seconds: pytest.fail("it waited"))
    assert [pace.begin(10_000), pace.begin(5)] == [10_000, 5]
