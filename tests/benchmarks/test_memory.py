"""The measurement of memory judges its numbers."""

from benchmarks.endurance import memory


def test_memory_faults_are_size_growth_failed_calls_and_a_replaced_worker() -> None:
    """Each promise can fail alone; growth counts from the first million on."""
    assert memory.memory_faults([100.0, 103.0, 104.0], 0, replaced=False) == []
    grown, large = [100.0, 106.0], [251.0, 251.0]
    for rss_by_million, failed, replaced in (
        (grown, 0, False),
        (large, 0, False),
        ([100.0], 1, False),
        ([100.0], 0, True),
    ):
        assert len(memory.memory_faults(rss_by_million, failed, replaced=replaced)) == 1
