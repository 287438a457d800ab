"""The memory and scaling measurements judge and print their numbers."""

from benchmarks.endurance import memory
from benchmarks.serving import scaling
from protos.predict_pb2 import PredictRequest


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


def test_scaling_table_shows_median_spread_and_the_worst_degraded_share() -> None:
    """Rounds may come in any order; the number of failed calls is below the table."""
    figures = {name: 2.0 for name, _ in scaling.FIGURES} | {"failed": 0.0, "degraded": 0.0}
    rounds = [figures | {"calls/s": calls} for calls in (3_000.0, 1_000.0, 2_000.0)]
    rounds[1] = rounds[1] | {"failed": 1.0, "degraded": 0.25}
    table = scaling.scaling_table([scaling.CASES[-1]], [rounds])
    assert "| 1,000 connections | 2,000 (1,000-3,000) |" in table
    assert "25.00%" in table
    assert table.endswith("1 calls failed")


def test_scaling_requests_prefer_popular_models_and_use_every_key_once() -> None:
    """The first of three models gets 6 of 11 calls, or a third; no key repeats too soon."""
    size = scaling.GatewaySize(models=3)
    for even, low, high in ((False, 0.52, 0.57), (True, 0.31, 0.36)):
        case = scaling.ScalingCase("models", 3, size, rows=2, even=even)
        requests = [PredictRequest.FromString(body) for body in scaling._requests(case)]
        first = sum(request.model == scaling.model_name(size, 0) for request in requests)
        assert low < first / len(requests) < high
        keys = [row.keys[0] for request in requests for row in request.rows]
        assert len(set(keys)) == len(keys) == scaling.ENTITIES
