"""Rounds become ratios of neighbours, and a promise is held or not."""

from typing import Any

from benchmarks.serving.report import Round, gateway_ratios, promise_results, report_table, targets
from benchmarks.serving.workloads import CANNED, GATEWAY, HANDWRITTEN, KEYED_ROLLING

SATURATED, ALONE = "by key, 1 row", "by key, 1 row, alone"


def rounds(
    gateway_calls_per_s: list[float],
    plain_calls_per_s: list[float],
    mine_ms: float,
    failed: int = 0,
) -> list[Round]:
    """Rounds of both servers; the machine halves its speed in each later one."""
    found: list[Round] = []
    for number, both in enumerate(zip(gateway_calls_per_s, plain_calls_per_s, strict=True)):
        for side, calls in zip((GATEWAY, HANDWRITTEN), both, strict=True):
            for workload, p50_ms in ((SATURATED, 30.0), (ALONE, mine_ms)):
                found.append(
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
    return found


def test_ratios_are_taken_between_neighbours_in_time() -> None:
    """A machine that slows down meanwhile changes both, and not the ratio."""
    assert gateway_ratios(rounds([4000, 4000], [2000, 2000], 0.4), SATURATED, "calls_per_s") == [
        2.0,
        2.0,
    ]


def test_each_promise_is_held_or_not() -> None:
    """1.3 times at saturation, no slower alone, nothing failed."""
    held = promise_results(rounds([2700], [2000], 0.5))
    assert [one["held"] for one in held] == [True, True, True]
    broken = promise_results(rounds([2500], [2000], 0.6, failed=1))
    assert [one["held"] for one in broken] == [False, False, False]


def test_each_target_stands_beside_what_was_measured() -> None:
    """Median and spread of the gateway's own rounds; by hand is not held to them."""
    by_name = {one["target"]: one for one in targets(rounds([90_000, 300_000], [1, 1], 0.3))}
    calls = by_name["by key, 1 row: calls_per_s >= 80,000"]
    assert (calls["measured"], calls["lowest"], calls["held"]) == (120_000, 90_000, True)
    assert by_name["by key, 1 row, alone: p50_ms <= 0.4"]["held"]
    assert not by_name["by key, 1 row: server_us_per_call <= 12"]["held"]


def test_a_target_may_be_held_against_another_workload() -> None:
    """With a canary and a shadow: 80 % of the same without, by neighbours in time."""
    without = [one for one in rounds([4000, 4000], [1, 1], 0.3) if one["workload"] == SATURATED]
    rolling = [
        {**one, "workload": KEYED_ROLLING, "calls_per_s": one["calls_per_s"] * 0.75}
        for one in without
    ]
    (told,) = [
        one for one in targets(without + rolling) if one["target"].endswith(f"x {SATURATED}")
    ]
    assert (told["measured"], told["held"]) == (0.75, False)


def test_the_table_says_the_spread_and_what_was_not_held() -> None:
    """Who reads only the table still sees a promise that was missed."""
    machine: dict[str, Any] = {
        "cpu": "a CPU",
        "cores": 2,
        "python": "3.11",
        "packages": {"grpcio": "1.85"},
    }
    ceiling = {**rounds([9000], [9000], 1.0)[0], "side": CANNED, "workload": CANNED}
    every = [ceiling, *rounds([2500, 2600], [2000, 2000], 0.6)]
    report = {
        "rounds": every,
        "machine": machine,
        "commit": "abc",
        "measured_at": "now",
        "verdicts": promise_results(every),
        "targets": targets(every),
        "ingress": "grpcio",
    }
    text = report_table(report)
    assert "1.27 (1.25-1.30)" in text
    assert "| by key, 1 row: calls_per_s >= 80,000 | 1,900 (1,300-2,500) | NO |" in text
    assert "NOT HELD: by key, 1 row: calls_per_s >= 1.3 x by hand" in text
