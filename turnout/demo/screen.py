"""Displays of a running demo: a live page for terminals, or plain lines for logs."""

import time
from collections.abc import Callable
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from protos import rollout_pb2
from turnout.demo.checklist import Checklist, Step
from turnout.views.rollout_view import VERDICT_STYLES, stage_name

LINES_SHOWN = 4
REFRESH_HZ = 8.0
LOG_EVERY_S = 5.0
"""Seconds between two lines about the traffic in a log."""

STEP_MARKS = {"waiting": ("·", "dim"), "passed": ("✓", "bold green"), "failed": ("✗", "bold red")}


class Screen(Protocol):
    """Shows the progress of a demo."""

    def customers(self, line: dict[str, Any]) -> None:
        """Show the newest counts of the traffic (CallCounts.summary_line)."""
        ...

    def rollout(self, status: rollout_pb2.RolloutStatus) -> None:
        """Show the newest status of the current rollout."""
        ...

    def add_line(self, text: str) -> None:
        """Show one line of text about an event."""
        ...

    def step_changed(self, step: Step) -> None:
        """Show that *step* began or ended."""
        ...


class LiveScreen:
    """A page that redraws itself in the terminal."""

    def __init__(self, console: Console, checklist: Checklist, clock: Callable[[], float]) -> None:
        self._checklist = checklist
        self._clock = clock
        self._began = clock()
        self._spinner = Spinner("dots", style="cyan")
        self._customers: dict[str, Any] = {}
        self._rollout: rollout_pb2.RolloutStatus | None = None
        self.live = Live(console=console, get_renderable=self.page, refresh_per_second=REFRESH_HZ)

    def customers(self, line: dict[str, Any]) -> None:
        """The page shows it from the next redraw on."""
        self._customers = line

    def rollout(self, status: rollout_pb2.RolloutStatus) -> None:
        """The page shows it from the next redraw on."""
        self._rollout = status

    def add_line(self, text: str) -> None:
        """The page shows it below the checklist, with the time since the start."""
        self._checklist.lines.append(f"{self._clock() - self._began:6.1f} s  {text}")

    def step_changed(self, step: Step) -> None:
        """The page reads the checklist by itself."""

    def page(self) -> RenderableType:
        """Return the page as it is now."""
        head = Text.assemble(
            ("Turnout", "bold"),
            "  features, training, release and rollback, live",
            (f"   {self._clock() - self._began:.0f} s", "dim"),
        )
        parts: list[RenderableType] = [head, Text(), self._steps()]
        panels = [panel for panel in (self._customers_panel(), self._rollout_panel()) if panel]
        if panels:
            beside = Table.grid(expand=True)
            for _ in panels:
                beside.add_column(ratio=1)
            beside.add_row(*panels)
            parts += [Text(), beside]
        parts += [Text(line, style="dim") for line in self._checklist.lines[-LINES_SHOWN:]]
        return Group(*parts)

    def _steps(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(width=1)
        grid.add_column(no_wrap=True)
        grid.add_column(justify="right", no_wrap=True, width=7)
        grid.add_column(ratio=1)
        for step in self._checklist.steps:
            grid.add_row(*self._step(step))
        return grid

    def _step(self, step: Step) -> tuple[RenderableType, RenderableType, Text, RenderableType]:
        if step.state == "running":
            took = Text(f"{time.monotonic() - step.began:.1f} s", style="cyan")
            note: RenderableType = Text(step.note, style="cyan")
            if step.progress:
                row = Table.grid(padding=(0, 1))
                row.add_row(ProgressBar(total=1.0, completed=step.progress, width=20), note)
                note = row
            return self._spinner, Text(step.name, style="bold"), took, note
        mark, style = STEP_MARKS[step.state]
        took = Text("" if step.state == "waiting" else f"{step.took_s:.1f} s", style="dim")
        waiting = step.state == "waiting"
        name = Text(step.name, style="dim" if waiting else "")
        note = Text(step.promise if waiting else step.note, style="dim" if waiting else "")
        return Text(mark, style=style), name, took, note

    def _customers_panel(self) -> Panel | None:
        line = self._customers
        if not line:
            return None
        failed = line["failed"]
        grid = Table.grid(padding=(0, 2))
        grid.add_row("calls", f"{line['rate']:.0f}/s", f"{line['answered']:,} answered")
        grid.add_row("latency", f"p50 {_ms(line['p50_ms'])}", f"p99 {_ms(line['p99_ms'])}")
        recent = line["recent_versions"]
        for version, calls in sorted(line["versions"].items()):
            share = recent.get(version, 0) / max(sum(recent.values()), 1)
            bar = ProgressBar(total=1.0, completed=share, width=16)
            grid.add_row(f"version {version}", bar, f"{share:.0%} now, {calls:,} in all")
        verdict = ("0 failed", "bold green") if not failed else (f"{failed} failed", "bold red")
        fallbacks = line["roles"].get("fallback", 0)
        saved = f"   {fallbacks} answered by production instead" if fallbacks else ""
        return Panel(
            Group(grid, Text.assemble(verdict, saved)), title="customers", title_align="left"
        )

    def _rollout_panel(self) -> Panel | None:
        status = self._rollout
        if status is None:
            return None
        name = rollout_pb2.Verdict.Name(status.verdict)
        parts: list[RenderableType] = [
            Text.assemble(
                (f"version {status.version}", "bold"),
                f" beside {status.baseline}: ",
                (stage_name(status), "bold"),
            ),
            Text.assemble((name, VERDICT_STYLES[status.verdict]), f"  {status.reason}"),
        ]
        parts += [
            Text(
                f"{evidence.metric} {evidence.canary_events}/{evidence.canary_keys} keys: ln e "
                f"{evidence.log_e_max:.1f}/{evidence.log_threshold:.1f} to roll back, "
                f"{evidence.promote_log_e:.1f}/{evidence.promote_log_threshold:.1f} to promote",
                style="dim",
            )
            for evidence in status.evidence
        ]
        return Panel(Group(*parts), title=f"rollout, policy {status.policy}", title_align="left")


class LogScreen:
    """Plain lines for logs and pipes."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._began = clock()
        self._last_logged = clock()
        self._verdict = ""

    def customers(self, line: dict[str, Any]) -> None:
        """Print the counts every LOG_EVERY_S."""
        if self._clock() - self._last_logged >= LOG_EVERY_S:
            self._last_logged = self._clock()
            self.add_line(
                f"customers: {line['rate']:.0f} calls/s, p50 {_ms(line['p50_ms'])}, p99 "
                f"{_ms(line['p99_ms'])}, {line['answered']} answered, {line['failed']} failed"
            )

    def rollout(self, status: rollout_pb2.RolloutStatus) -> None:
        """Print the verdict when it has changed and is not UNDECIDED."""
        verdict = rollout_pb2.Verdict.Name(status.verdict)
        new = f"version {status.version}: {verdict}"
        if new != self._verdict and status.verdict != rollout_pb2.UNDECIDED:
            self.add_line(f"{new}, {status.reason}")
        self._verdict = new

    def add_line(self, text: str) -> None:
        """Print the line with the time since the start."""
        self._console.print(Text(f"{self._clock() - self._began:6.1f} s  {text}"), soft_wrap=True)

    def step_changed(self, step: Step) -> None:
        """Print the beginning and the end of a step."""
        if step.state == "running":
            self.add_line(f"{step.name} ...")
        else:
            self.add_line(f"{step.name}: {step.state} in {step.took_s:.1f} s. {step.note}")


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} ms"
