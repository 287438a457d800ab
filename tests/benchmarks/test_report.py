"""The report takes ratios within rounds, and checks promises and targets."""

from typing import Any

from benchmarks.serving.report import Round, gateway_ratios, promise_results, report_table, targets
from benchmarks.serving.workloads import CANNED, GATEWAY, HANDWRITTEN, KEYED_ROLLING

SATURATED, ALONE = "by key, 1 row", "by key, 1 row, alone"


def rounds(
    gateway_calls_per_s: list[float],
    handwritten_calls_per_s: list[float],
    gateway_alone_ms: float,
    failed: int = 0,
) -> list[Round]:
    """Return rounds of both servers, on a machine that is half as fast in each later round."""
    timed: list[Round] = []
    for number, both in enumerate(zip(gateway_calls_per_s, handwritten_calls_per_s, strict=True)):
        for side, calls in zip((GATEWAY, HANDWRITTEN), both, strict=True):
            for workload, p50_ms in ((SATURATED, 30.0), (ALONE, gateway_alone_ms)):
                timed.append(
                    {
                        "side": side,
                        "workload": workload,
                        "calls_per_s": calls / 2**number,
                        "rows_per_s": calls / 2**number,
                        "p50_ms": p50_ms if side == GATEWAY else 0.5,
                        "p99_ms": 1.0,
                        "server_us_per_call": 300.0,
                        "generator_us_per_call": 30.0,
                        "failed": failed,
                    }
                )
    return timed


def test_gateway_ratios_are_taken_within_a_round() -> None:
    """A machine that slows down between rounds changes both servers, not their ratio."""
    assert gateway_ratios(rounds([4000, 4000], [2000, 2000], 0.4), SATURATED, "calls_per_s") == [
        2.0,
        2.0,
    ]


def test_promise_results_say_whether_each_promise_held() -> None:
    """The promises: 1.3 x the calls at saturation, no slower alone, no call failed."""
    held = promise_results(rounds([2700], [2000], 0.5))
    assert [result["held"] for result in held] == [True, True, True]
    broken = promise_results(rounds([2500], [2000], 0.6, failed=1))
    assert [result["held"] for result in broken] == [False, False, False]


def test_targets_have_the_median_and_spread_of_the_gateways_rounds() -> None:
    """The handwritten server's rounds do not count."""
    by_name = {
        target["target"]: target for target in targets(rounds([90_000, 300_000], [1, 1], 0.3))
    }
    calls = by_name["by key, 1 row: calls_per_s >= 80,000"]
    assert (calls["measured"], calls["lowest"], calls["held"]) == (120_000, 90_000, True)
    assert by_name["by key, 1 row, alone: p50_ms <= 0.4"]["held"]
    assert not by_name["by key, 1 row: server_us_per_call <= 12"]["held"]


def test_targets_may_compare_two_workloads() -> None:
    """Calls/s with canary and shadow are compared with those without, round by round."""
    without = [r for r in rounds([4000, 4000], [1, 1], 0.3) if r["workload"] == SATURATED]
    rolling = [
        {**r, "workload": KEYED_ROLLING, "calls_per_s": r["calls_per_s"] * 0.75} for r in without
    ]
    (result,) = [t for t in targets(without + rolling) if t["target"].endswith(f"x {SATURATED}")]
    assert (result["measured"], result["held"]) == (0.75, False)


def test_report_table_shows_the_spread_and_what_did_not_hold() -> None:
    """A reader of the table alone sees a promise that was missed."""
    machine: dict[str, Any] = {
        "cpu": "a CPU",
        "cores": 2,
        "python": "3.11",
        "packages": {"grpcio": "1.85"},
    }
    ceiling = {**rounds([9000], [9000], 1.0)[0], "side": CANNED, "workload": CANNED}
    timed = [ceiling, *rounds([2500, 2600], [2000, 2000], 0.6)]
    report = {
        "rounds": timed,
        "machine": machine,
        "commit": "abc",
        "measured_at": "now",
        "verdicts": promise_results(timed),
        "targets": targets(timed),
        "ingress": "grpcio",
    }
    text = report_table(report)
    assert "1.27 (1.25-1.30)" in text
    assert "| by key, 1 row: calls_per_s >= 80,000 | 1,900 (1,300-2,500) | NO |" in text
    assert "NOT HELD: by key, 1 row: calls_per_s >= 1.3 x by hand" in text
