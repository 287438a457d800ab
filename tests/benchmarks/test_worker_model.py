"""The model of a host's workers: what each has, how calls fall on them, what a store can feed."""

import pytest

from benchmarks.serving import worker_model, workers
from benchmarks.serving.worker_model import WorkerFigures, busiest_share

FIGURES = WorkerFigures(
    private_mb=60.0,
    shared_mb=40.0,
    supervisor_mb=30.0,
    shadow_mb=50.0,
    store_connections=2.0,
    report_us=20.0,
    us_by_open={1: 200.0, 16: 50.0, 1_024: 5.0},
    store_us_by_open={1: 20.0, 16: 5.0, 1_024: 1.0},
)


def test_busiest_share_of_connections_grows_with_workers_and_falls_with_connections() -> None:
    """One worker has all; many connections spread evenly; few leave workers without any."""
    assert busiest_share(64, 1) == (1.0, 1.0)
    assert busiest_share(64, 2)[0] < busiest_share(64, 16)[0]
    assert busiest_share(16, 16)[0] >= 3.0
    median, high = busiest_share(100_000, 16)
    assert 1.0 < median < high < 1.05


def test_cost_of_a_call_is_read_between_the_measured_numbers_of_open_calls() -> None:
    """Between two numbers it follows their logarithms; outside it stays at the nearest."""
    assert FIGURES.us_at(16) == 50.0
    assert FIGURES.us_at(4) == pytest.approx(125.0)
    assert FIGURES.us_at(5_000) == 5.0
    assert FIGURES.store_us_at(1) == 20.0


def test_host_has_a_spare_beside_its_workers_and_a_shadow_process_for_each() -> None:
    """Two workers: three times the private memory, two shadow processes, the rest once."""
    assert worker_model.host_memory_mb(FIGURES, 2, shadows=1) == 3 * 60 + 2 * 50 + 40 + 30
    rows = {row.split(" | ")[0]: row for row in worker_model.host_rows(FIGURES, 2, 0)}
    # 16 workers: 33 connections to the store; a watch each, of the spare too, and 32 of windows.
    assert "| 33 | 49 | 16 | 32 |" in rows["| 16"]
    # 15 workers read each of 1,000 reports/s, 20 us each.
    assert rows["| 16"].endswith("| 0.30 |")


def test_calls_spread_over_workers_cost_more_and_a_saturated_host_fills_the_store() -> None:
    """128 calls open over 16 workers are 8 for each, which costs what a batch of 8 costs."""
    one, *_, sixteen = worker_model.load_rows(FIGURES)
    # 1,024 calls open in one worker: 200,000 calls/s at 5 us, and a fifth of the store's thread.
    assert one.endswith("| 5.0 | 200,000 | 0.20 |")
    assert f"| {FIGURES.us_at(8):.1f} |" in sixteen
    assert sixteen.startswith("| 16 | 200.0 |")


def test_table_compares_arrangements_round_by_round_and_prints_the_model() -> None:
    """The ratio of CPU a call is that within a round, whatever the machine's pace."""
    # Two rounds, of which the second one runs at half the pace.
    rounds: list[workers.Round] = []
    for pace in (1.0, 2.0):
        for arrangement, cpu in zip(workers.ARRANGEMENTS, (10.0, 12.0, 15.0), strict=True):
            rounds += [
                {
                    "arrangement": arrangement.name,
                    "workload": workload.name,
                    "calls_per_s": 1_000.0,
                    "p99_ms": 1.0,
                    "server_us_per_call": cpu * pace,
                    "store_us_per_call": 1.0,
                }
                for workload in (*workers.COMPARED, *workers.CURVE.values())
            ]
            rounds.append(
                {
                    "arrangement": arrangement.name,
                    "workload": workers.PARTS,
                    "us_per_connection": 50.0,
                    "connections_by_worker": [250, 250],
                    "store_connections_by_worker": 1.0,
                    "private_mb": 60.0,
                    "rss_mb": 100.0,
                    "supervisor_mb": 30.0,
                    "shadow_mb": 50.0,
                    "report_us": 20.0,
                }
            )
    # The table has the ratios and the model.
    table = workers.workers_table(rounds)
    assert "2 workers on one core | 1,000 (1,000-1,000)" in table
    assert "| 1.20 (1.20-1.20) |" in table
    assert worker_model.model_text(workers.worker_figures(rounds)) in table
