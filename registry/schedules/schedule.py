"""A schedule: what makes a model due to be trained, and the bounds on that. No I/O.

One table of a project's `schedules.toml`, and one entry of the section `schedules` of applied
definitions:

    [weekly]
    model = "churn"
    setting = "candidate"
    cron = "0 4 * * 1"
    zone = "Europe/Berlin"
    after_view = "usage"
    new_labels = 5_000
    on_finding = ["drift"]
    cool_down = "12h"
    budget = { runs = 8, seconds = 7_200, per = "month" }
    freeze = ["2026-12-18 - 2027-01-07"]
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from host.freeze_windows import parse_freeze_window
from registry.types import MODEL_NAME

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,31}")
KIND = re.compile(r"[a-z][a-z0-9_-]{0,63}")
DURATION = re.compile(r"([1-9]\d{0,4})([smhd])")
SECONDS_OF = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
DAYS_OF = {"week": 7, "month": 30}
"""What a budget is for -> the days before the run in which it counts."""
TRIGGERS = ("cron", "after_view", "new_labels", "on_finding")
KEYS = ("model", "setting", *TRIGGERS, "zone", "cool_down", "budget", "freeze")
BUDGET_KEYS = ("runs", "seconds", "per")
CRON_FIELDS = 5
TRAINING_FAILED = "training-failed"
"""The kind of finding that the registry writes when a queued run has failed for good."""
OWN_KINDS = frozenset(
    {TRAINING_FAILED, "acted", "clear", "forgotten", "outcome", "rejected", "replay", "retrain"}
)
"""Kinds of finding that tell no model is worse, or that queue a run themselves ("retrain").
`on_finding = true` does not mean them."""


class ScheduleError(ValueError):
    """A schedule contradicts itself. The text names the key and says what it may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What makes a model due, and the bounds on that. Texts are as in the file.

    on_finding      kinds of finding; True: every kind that says a model is worse.
    budget_runs     most runs within `budget_days`; 0: no bound.
    budget_seconds  most seconds of training within `budget_days`; 0: no bound.
    """

    name: str
    model: str
    setting: str = ""
    cron: str = ""
    zone: str = "UTC"
    after_view: str = ""
    new_labels: int = 0
    on_finding: tuple[str, ...] | bool = ()
    cool_down: str = ""
    budget_runs: int = 0
    budget_seconds: int = 0
    budget_per: str = "month"
    freeze: tuple[str, ...] = ()

    @property
    def cool_down_s(self) -> int:
        """Seconds from one run of the model to the next one that this schedule may ask for."""
        return _seconds(self.cool_down) if self.cool_down else 0

    @property
    def budget_days(self) -> int:
        """Days before a run in which the budget counts."""
        return DAYS_OF[self.budget_per]

    def wants(self, finding_kind: str) -> bool:
        """Whether a finding of this kind makes the model due."""
        if isinstance(self.on_finding, bool):
            return self.on_finding and finding_kind not in OWN_KINDS
        return finding_kind in self.on_finding

    def due_before(self, instant: datetime) -> datetime | None:
        """Return the newest instant at or before *instant* at which cron is due; None without cron.

        Both are aware, and the result is in UTC.
        """
        if not self.cron:
            return None
        # CronSim never returns its own start. A local time plus a second may be another hour's.
        start = instant.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
        return _next(self.cron, start.astimezone(ZoneInfo(self.zone)), reverse=True)

    def due_after(self, instant: datetime) -> datetime | None:
        """Return the next instant after *instant* at which cron is due; None without cron."""
        if not self.cron:
            return None
        return _next(self.cron, instant.astimezone(ZoneInfo(self.zone)), reverse=False)

    def definition(self) -> dict[str, Any]:
        """Return the schedule as JSON values, without what it does not say."""
        budget = {"runs": self.budget_runs, "seconds": self.budget_seconds}
        budget = {key: value for key, value in budget.items() if value}
        finding = self.on_finding
        values = {
            "model": self.model,
            "setting": self.setting,
            "cron": self.cron,
            "zone": self.zone if self.cron else "",
            "after_view": self.after_view,
            "new_labels": self.new_labels,
            "on_finding": finding if isinstance(finding, bool) else list(finding),
            "cool_down": self.cool_down,
            "budget": {**budget, "per": self.budget_per} if budget else {},
            "freeze": list(self.freeze),
        }
        return {key: value for key, value in values.items() if value}


def parse_schedule(name: str, table: object) -> Schedule:
    """Return the schedule that a table describes. Raises ScheduleError, which names the key."""
    # Names first: a key that is not known would be without effect.
    if not NAME.fullmatch(name):
        raise ScheduleError(f"schedule {name[:80]!r}: its name must match {NAME.pattern}")
    if not isinstance(table, dict):
        raise ScheduleError(f"schedule {name!r} must be a table, [{name}]")
    unknown = sorted(table.keys() - set(KEYS))
    if unknown:
        known = ", ".join(KEYS)
        raise ScheduleError(f"schedule {name!r}: {unknown[0]} is not known; the keys are {known}")
    try:
        return _parsed(name, table)
    except ScheduleError as error:
        raise ScheduleError(f"schedule {name!r}: {error}") from error


def _parsed(name: str, table: Mapping[str, Any]) -> Schedule:
    # Every text by its form.
    texts = {key: _text(table, key) for key in ("model", "setting", "cron", "zone", "after_view")}
    if not MODEL_NAME.fullmatch(texts["model"]):
        raise ScheduleError(f"model = {texts['model']!r}; it must name a model, such as 'churn'")
    if not any(table.get(key) for key in TRIGGERS):
        raise ScheduleError(f"nothing makes it due; give it one of {', '.join(TRIGGERS)}")
    if texts["zone"] and not texts["cron"]:
        raise ScheduleError("zone is of cron, and there is no cron")
    texts["zone"] = texts["zone"] or "UTC"
    _check_cron(texts["cron"], texts["zone"])
    new_labels = table.get("new_labels", 0)
    if type(new_labels) is not int or not 0 <= new_labels <= 2**31:
        raise ScheduleError(f"new_labels = {new_labels!r}; it must be a whole number of labels")
    # The bounds.
    cool_down = _text(table, "cool_down")
    if cool_down:
        _seconds(cool_down)
    return Schedule(
        name=name,
        model=texts["model"],
        setting=texts["setting"],
        cron=texts["cron"],
        zone=texts["zone"],
        after_view=texts["after_view"],
        new_labels=new_labels,
        on_finding=_finding_kinds(table.get("on_finding", ())),
        cool_down=cool_down,
        **_budget(table.get("budget", {})),
        freeze=_freeze(table.get("freeze", [])),
    )


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str) or len(value) > 128:
        raise ScheduleError(f"{key} = {value!r}; it must be a text of at most 128 characters")
    return value


def _check_cron(cron: str, zone: str) -> None:
    """Raise ScheduleError unless *cron* is due at some time in the next years."""
    try:
        known = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ScheduleError(
            f"zone = {zone!r} is no time zone that this host knows; write one such as "
            "'Europe/Berlin', or install the zones (Debian: tzdata)"
        ) from error
    if not cron:
        return
    if len(cron.split()) != CRON_FIELDS:
        raise ScheduleError(
            f"cron = {cron!r}; it has five fields: minute, hour, day, month, weekday, such as "
            "'0 4 * * 1'"
        )
    try:
        due = _next(cron, datetime(2026, 1, 1, tzinfo=known), reverse=False)
    except CronSimError as error:
        raise ScheduleError(f"cron = {cron!r} cannot be read: {error}") from error
    if due is None:
        raise ScheduleError(f"cron = {cron!r} is never due: no year has such a day")


def _next(cron: str, start: datetime, *, reverse: bool) -> datetime | None:
    """Return the first due instant after (before) *start*, in UTC; None: there is none."""
    found = next(CronSim(cron, start, reverse=reverse), None)
    return None if found is None else found.astimezone(UTC)


def _seconds(text: str) -> int:
    found = DURATION.fullmatch(text)
    if found is None:
        raise ScheduleError(f"cool_down = {text!r}; write a time such as '90m', '12h' or '7d'")
    return int(found[1]) * SECONDS_OF[found[2]]


def _finding_kinds(value: object) -> tuple[str, ...] | bool:
    if isinstance(value, bool):
        return value
    kinds = value if isinstance(value, list | tuple) else (value,)
    for kind in kinds:
        if not isinstance(kind, str) or not KIND.fullmatch(kind) or kind == TRAINING_FAILED:
            raise ScheduleError(
                f"on_finding = {value!r}; it is true or a list of kinds such as ['drift'], and "
                f"{TRAINING_FAILED!r} would repeat itself"
            )
    return tuple(kinds)


def _budget(value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() - set(BUDGET_KEYS):
        raise ScheduleError(f"budget = {value!r}; it is a table of {', '.join(BUDGET_KEYS)}")
    counts = {key: value.get(key, 0) for key in ("runs", "seconds")}
    for key, count in counts.items():
        if type(count) is not int or count < 0:
            raise ScheduleError(f"budget.{key} = {count!r}; it must be a whole number")
    per = value.get("per", "month")
    if per not in DAYS_OF:
        raise ScheduleError(f"budget.per = {per!r}; it must be one of {', '.join(DAYS_OF)}")
    return {"budget_runs": counts["runs"], "budget_seconds": counts["seconds"], "budget_per": per}


def _freeze(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ScheduleError(f"freeze = {value!r}; it is a list of windows, each a text")
    try:
        for text in value:
            parse_freeze_window(text)
    except ValueError as error:
        raise ScheduleError(str(error)) from error
    return tuple(value)
