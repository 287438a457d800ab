"""The report takes ratios within rounds, and checks promises and targets."""

from typing import Any

import pytest

from benchmarks.serving.report import (
    Round,
    gateway_ratios,
    growth_rows,
    promise_results,
    report_table,
    short_pct,
    targets,
)
from benchmarks.serving.workloads import (
    CANNED,
    GATEWAY,
    GROWTH,
    HANDWRITTEN,
    KEYED_4096,
    KEYED_HALF_RATE,
    KEYED_ROLLING,
    OPEN_WORKLOADS,
    TARGETS,
    WORKLOADS,
    picked_workloads,
)

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


def gateway_round(workload: str, **figures: float) -> Round:
    """Return one round of the gateway with these figures; the others are 1."""
    names = ("calls_per_s", "rows_per_s", "p50_ms", "p99_ms", "server_us_per_call")
    return {"side": GATEWAY, "workload": workload} | dict.fromkeys(names, 1.0) | figures


def test_targets_of_open_calls_compare_with_the_best_of_fewer_open() -> None:
    """A dip behind 16 open is seen at 24, although 24 have more calls/s than 8."""
    calls = {1: 5.0, 2: 9.0, 4: 17.0, 8: 30.0, 15: 40.0, 16: 41.0, 24: 35.0, 31: 60.0}
    calls |= {32: 59.0, 48: 80.0, 64: 90.0}
    timed = [gateway_round(OPEN_WORKLOADS[n], calls_per_s=calls[n]) for n in calls]
    missed = [target for target in targets(timed) if "fewer open" in target["target"]]
    assert len(missed) == len(OPEN_WORKLOADS) - 1
    missed = [target for target in missed if not target["held"]]
    assert [target["target"].partition(":")[0] for target in missed] == [OPEN_WORKLOADS[24]]
    assert missed[0]["short_pct"] == pytest.approx(12.0, abs=0.1)


def test_target_of_no_degraded_rows_is_missed_by_a_single_row() -> None:
    """A bound of zero is missed in points of percent."""
    held = targets([gateway_round(KEYED_4096, degraded_share=0.0)])
    missed = targets([gateway_round(KEYED_4096, degraded_share=0.002)])
    assert [(t["held"], t["short_pct"]) for t in held + missed] == [(True, 0.0), (False, 0.2)]


def test_short_pct_is_a_share_of_the_bound_in_either_direction() -> None:
    """54,000 of 60,000 calls/s and 6.6 of 6 ms are both 10 % short."""
    assert short_pct(54_000, 60_000) == pytest.approx(10)
    assert short_pct(6.6, 6) == pytest.approx(10)


def test_growth_rows_have_each_axis_that_was_measured_completely() -> None:
    """CPU a row is that of a call over its rows."""
    timed = [
        gateway_round(name, server_us_per_call=64.0) for name in GROWTH["rows a call"].values()
    ]
    rows = growth_rows(timed)
    assert len(rows) == len(GROWTH["rows a call"])
    assert "| rows a call: 64 |" in rows[1]
    assert rows[1].endswith("| 64.0 | 1.00 |")
    assert growth_rows(timed[:-1]) == []


def test_picked_workloads_have_what_they_are_compared_with() -> None:
    """An open loop at half needs the closed one; a share of calls/s needs the other calls/s."""
    assert [w.name for w in picked_workloads("at half")] == [SATURATED, KEYED_HALF_RATE]
    assert SATURATED in {w.name for w in picked_workloads(KEYED_ROLLING)}
    assert picked_workloads("no such workload") == []
    assert picked_workloads("") == list(WORKLOADS)


def test_workloads_have_unique_names_and_every_target_and_axis_names_one() -> None:
    """A misspelled name would leave a bar out in silence."""
    names = [workload.name for workload in WORKLOADS]
    assert len(set(names)) == len(names)
    named = {target.workload for target in TARGETS} | {target.against for target in TARGETS}
    named |= {name for target in TARGETS for name in target.against_best_of}
    named |= {name for axis in GROWTH.values() for name in axis.values()}
    assert named - {""} <= set(names)
    by_hand = {workload.name for workload in WORKLOADS if workload.handwritten}
    assert {target.workload for target in TARGETS if target.over_handwritten} <= by_hand


def test_report_table_shows_the_spread_and_what_did_not_hold() -> None:
    """A reader of the table alone sees a promise that was missed."""
    machine: dict[str, Any] = {
        "cpu": "a CPU",
        "cores": 2,
        "python": "3.11",
        "packages": {"grpcio": "1.85"},
        "load_average_at_start": [1.2, 1.0, 1.0],
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
    assert "80,000 | 1,900 (1,300-2,500) | falls short by 97.6 % |" in text
    assert "load at start 1.2" in text
    assert "NOT HELD: by key, 1 row: calls_per_s >= 1.3 x by hand" in text
