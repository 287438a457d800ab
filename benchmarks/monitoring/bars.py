"""What a benchmark of monitoring is asked for, and what it gives back."""

from dataclasses import dataclass, field
from typing import Any

from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringOptions:
    """What the command line asks of every benchmark of monitoring."""

    rounds: int | None = None
    """Worlds, kills or repetitions; None: the benchmark's own number."""
    quick: bool = False
    """A small version, for tests: too few rounds to state a bar."""
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredBar:
    """One measured number, and the bound that was promised."""

    subject: str
    measured: str
    promised: str = ""
    passed: bool | None = None
    """None: shown for comparison; nothing was promised."""
    numbers: dict[str, Any] = field(default_factory=dict)
    """JSON values for `--json`."""


def bars_as_table(title: str, bars: list[MeasuredBar]) -> Table:
    """Return the table that people read."""
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for heading in ("what", "measured", "promised", ""):
        table.add_column(heading)
    verdicts = {True: "[green]met", False: "[red]missed", None: ""}
    for bar in bars:
        table.add_row(bar.subject, bar.measured, bar.promised, verdicts[bar.passed])
    return table
