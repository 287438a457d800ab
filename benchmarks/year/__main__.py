"""Replays a virtual year of four models, and says what monitoring found of each planted event.

    python -m benchmarks.year                      # the whole year
    python -m benchmarks.year --quick              # a quarter of one model
    python -m benchmarks.year --pictures docs/pictures --json year.json

Exit code 1: an event is not as listed, or false alarms are more than promised.
docs/monitoring-year.md explains the table.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.year.planted_events import PLANTED_EVENTS, YEAR_DAYS, PlantedEvent
from benchmarks.year.replay import SeenAlarm, YearReplay, YearResult
from benchmarks.year.year_models import YEAR_MODELS
from benchmarks.year.year_pictures import draw_model_year
from benchmarks.year.year_verdicts import EventVerdict, Outcome, YearVerdict, judge_year

QUICK_DAYS = 91
QUICK_MODELS = ("fraud",)
FILE_COLUMNS = 190


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay what was asked for and print the table; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.year",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a quarter of one model")
    parser.add_argument("--days", type=int, default=YEAR_DAYS, help="first days of the year")
    parser.add_argument("--models", nargs="+", choices=[model.name for model in YEAR_MODELS])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write events and alarms there")
    parser.add_argument("--pictures", type=Path, help="draw each model to this folder")
    asked = parser.parse_args(arguments)
    # Which models, and how many days.
    names = asked.models or (QUICK_MODELS if asked.quick else [model.name for model in YEAR_MODELS])
    days = min(asked.days, QUICK_DAYS if asked.quick else YEAR_DAYS)
    # Replay, judge and show.
    started = time.process_time()
    models = [model for model in YEAR_MODELS if model.name in names]
    with tempfile.TemporaryDirectory(prefix="turnout-year-") as folder:
        result = YearReplay(Path(folder), models, PLANTED_EVENTS, asked.seed).run(days)
    verdict = judge_year(PLANTED_EVENTS, names, result)
    # Lines of a file are as long as the table needs.
    console = Console(width=None if sys.stdout.isatty() else FILE_COLUMNS)
    console.print(verdict_table(verdict, days), false_alarm_table(verdict))
    console.print(f"{days} days of {len(models)} models, {time.process_time() - started:.0f} s CPU")
    if asked.json is not None:
        asked.json.write_text(json.dumps(year_facts(verdict, result), indent=1), encoding="utf-8")
    if asked.pictures is not None:
        asked.pictures.mkdir(parents=True, exist_ok=True)
        for model in models:
            draw_model_year(model.name, verdict, result, asked.pictures / f"year-{model.name}.svg")
    return 0 if verdict.right else 1


def verdict_table(verdict: YearVerdict, days: int) -> Table:
    """Return the table of the events."""
    table = Table(box=None, pad_edge=False, title=f"{days} days", title_justify="left")
    for heading in ("event", "models", "day", "expected", "what became of it", "days", "cause"):
        table.add_column(heading)
    for item in sorted(verdict.events, key=lambda item: item.event.first_day):
        event, first = item.event, item.first
        colour = "green" if item.right else "red"
        table.add_row(
            event.name,
            ", ".join(event.models),
            f"{event.first_day} to {event.last_day}",
            expected_text(event),
            f"[{colour}]{item.outcome.value}",
            "" if item.latency_days is None else str(item.latency_days),
            "" if first is None else f"{first.incident.cause}: {first.alarm.stream}",
        )
    return table


def expected_text(event: PlantedEvent) -> str:
    """Return what must be found of an event, and when."""
    if event.silent:
        return "silence"
    return f"{' or '.join(sorted(event.kinds))} within {event.found_within} d"


def false_alarm_table(verdict: YearVerdict) -> Table:
    """Return the table of the alarms that no event explains."""
    number, promised = len(verdict.false_alarms), verdict.promised_false_alarms
    title = f"{number} alarms that no event explains; promised are {promised:.1f} on average"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for heading in ("day", "version", "kind", "stream", "cause"):
        table.add_column(heading)
    for seen in verdict.false_alarms:
        alarm = seen.alarm
        version = f"{alarm.model} {alarm.version}" + (" (shadow)" if alarm.shadow else "")
        table.add_row(str(seen.day), version, alarm.kind, alarm.stream, seen.incident.cause)
    return table


def year_facts(verdict: YearVerdict, result: YearResult) -> dict[str, object]:
    """Return verdicts and alarms as JSON values."""
    return {
        "days": result.days,
        "events": [_event_facts(item) for item in verdict.events],
        "promised_false_alarms": verdict.promised_false_alarms,
        "false_alarms": [_alarm_facts(seen) for seen in verdict.false_alarms],
        "alarms": [_alarm_facts(seen) for seen in result.alarms],
    }


def _event_facts(item: EventVerdict) -> dict[str, object]:
    return {
        "name": item.event.name,
        "models": list(item.event.models),
        "first_day": item.event.first_day,
        "last_day": item.event.last_day,
        "outcome": item.outcome.value,
        "right": item.right and item.outcome is not Outcome.NO_LOOK,
        "latency_days": item.latency_days,
        "alarm": None if item.first is None else _alarm_facts(item.first),
    }


def _alarm_facts(seen: SeenAlarm) -> dict[str, object]:
    alarm = seen.alarm
    return {
        "day": seen.day,
        "model": alarm.model,
        "version": alarm.version,
        "kind": alarm.kind,
        "stream": alarm.stream,
        "host": alarm.host,
        "shadow": alarm.shadow,
        "cause": seen.incident.cause,
        "incident": seen.incident.number,
    }


if __name__ == "__main__":
    sys.exit(main())
