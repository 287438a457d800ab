"""What the longer measurements make of their numbers."""

from benchmarks.endurance import memory
from benchmarks.serving import scaling
from protos.predict_pb2 import PredictRequest


def test_a_worker_is_judged_by_weight_growth_failures_and_by_being_the_same() -> None:
    """Each promise alone can fail; growth counts from the first million on."""
    assert memory.memory_faults([100.0, 103.0, 104.0], 0, replaced=False) == []
    grown, heavy = [100.0, 106.0], [251.0, 251.0]
    for weights, failed, replaced in (
        (grown, 0, False),
        (heavy, 0, False),
        ([100.0], 1, False),
        ([100.0], 0, True),
    ):
        assert len(memory.memory_faults(weights, failed, replaced=replaced)) == 1


def test_a_case_is_told_by_its_median_spread_and_worst_share() -> None:
    """Rounds in any order; a failed call is said."""
    figures = {name: 2.0 for name, _ in scaling.FIGURES} | {"failed": 0.0, "degraded": 0.0}
    rounds = [figures | {"calls/s": calls} for calls in (3_000.0, 1_000.0, 2_000.0)]
    rounds[1] = rounds[1] | {"failed": 1.0, "degraded": 0.25}
    said = scaling.scaling_table([scaling.CASES[-1]], [rounds])
    assert "| 1,000 connections | 2,000 (1,000-3,000) |" in said
    assert "25.00%" in said
    assert said.endswith("1 calls failed")


def test_requests_ask_for_popular_models_more_often_and_for_every_row_once() -> None:
    """The first of three models gets 6 of 11 calls; no key comes twice before all have come."""
    served = scaling.GatewaySize(models=3)
    asked = [PredictRequest.FromString(body) for body in scaling._requests(served, 2)]
    first = sum(request.model == scaling.model_name(served, 0) for request in asked) / len(asked)
    assert 0.52 < first < 0.57
    keys = [row.keys[0] for request in asked for row in request.rows]
    assert len(set(keys)) == len(keys) == scaling.ENTITIES
