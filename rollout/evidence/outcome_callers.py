"""Outcomes are counted by the caller that reported them: no single caller moves a verdict.

Each caller has a test of its own: the test of outcomes on what all *other* callers reported. A
rollback by outcomes needs the evidence of the whole test and of each of these, except those of
callers that the policy trusts. So whatever one caller reports, the others' reports must say the
same. The formulas are those of `stats.tilt`. Each test is valid by itself, so a rollback that needs
all of them is no more likely for a healthy version than a rollback by one of them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from protos import rollout_pb2
from rollout.evidence.key_sample import LOW_BITS
from rollout.evidence.metric_test import MetricTest, tilt_from_proto, tilt_to_proto
from stats import tilt

CALLERS_MAX = 32
"""Callers with a test of their own. Further callers count as one, OTHER_CALLERS."""
OTHER_CALLERS = "other callers"
CONFIRMED = ""
"""In `OutcomeCallers.reporters`: a second caller reported the key, too."""

ArmKeys = tuple[set[int], set[int]]
"""Keys with a good outcome: the candidate's, and the baseline's."""


@dataclass(slots=True)
class CallerReports:
    """What one caller reported, and the test without it."""

    keys: int
    """Keys that it reported before any other caller, or in the same second."""
    without: tilt.TiltState
    """The test on what all other callers reported."""


@dataclass(slots=True)
class OutcomeCallers:
    """The callers whose good outcomes one rollout has counted."""

    by_name: dict[str, CallerReports] = field(default_factory=dict)
    reporters: dict[int, str] = field(default_factory=dict)
    """Counted key -> its only caller, or CONFIRMED."""

    def count(
        self, whole: MetricTest, reports: Mapping[str, ArmKeys], share: float, looks_max: int
    ) -> None:
        """Count one second's good outcomes in *whole*, the test of all callers, and without each.

        reports           caller -> keys of both arms.
        share, looks_max  as `MetricTest.count_keys` takes them.
        """
        reports = self._bounded_callers(reports)
        # For a caller that reports for the first time, all evidence so far is of the others.
        for caller in reports:
            if caller not in self.by_name:
                self.by_name[caller] = CallerReports(0, whole.tilt_state)
        candidate = set[int]().union(*(keys for keys, _ in reports.values()))
        baseline = set[int]().union(*(keys for _, keys in reports.values())) - candidate
        # Events that count without each caller: keys that another caller reported.
        callers = _caller_of_each_key(reports)
        events = {caller: [0, 0] for caller in self.by_name}
        for arm, keys in enumerate((candidate, baseline)):
            for key in keys:
                if key & LOW_BITS < whole.counted_keys.sampled_of_65536:
                    for caller in self._note_reporter(key, callers[key], reports, whole):
                        events[caller][arm] += 1
        # Update all tests. The reporters are thinned as the keys of the whole test are.
        whole.count_keys(candidate, baseline, share, looks_max)
        for caller, (canary_events, baseline_events) in events.items():
            self.by_name[caller].without = tilt.step_tilt(
                whole.grid,
                self.by_name[caller].without,
                canary_events,
                baseline_events,
                share,
                looks_max,
            )
        counted = whole.counted_event_keys
        if len(counted) < len(self.reporters):
            self.reporters = {key: name for key, name in self.reporters.items() if key in counted}

    def _note_reporter(
        self, key: int, caller: str, reports: Mapping[str, ArmKeys], whole: MetricTest
    ) -> list[str]:
        """Note who reported *key* in this second. Return the callers without whom it counts now."""
        if key not in whole.counted_keys.keys:
            # It is new for everybody. It does not count without its only caller.
            self.reporters[key] = caller
            for name in (
                [caller] if caller else [n for n, arms in reports.items() if _has(arms, key)]
            ):
                self.by_name[name].keys += 1
            return [name for name in self.by_name if name != caller]
        first = self.reporters[key]
        if first in (CONFIRMED, caller):
            return []
        # A second caller confirms it, so it counts without the first one, too.
        self.reporters[key] = CONFIRMED
        return [first]

    def _bounded_callers(self, reports: Mapping[str, ArmKeys]) -> Mapping[str, ArmKeys]:
        """Return *reports* with callers beyond CALLERS_MAX as one."""
        room = CALLERS_MAX - len(self.by_name)
        new = sorted(name for name in reports if name not in self.by_name)
        if len(new) <= room:
            return reports
        others = set(new[max(0, room) :])
        merged = {name: arms for name, arms in reports.items() if name not in others}
        together = [reports[name] for name in others]
        together += [merged.pop(OTHER_CALLERS)] if OTHER_CALLERS in merged else []
        merged[OTHER_CALLERS] = (
            set[int]().union(*(keys for keys, _ in together)),
            set[int]().union(*(keys for _, keys in together)),
        )
        return merged

    def weakest_without(self, trusted: Collection[str]) -> tuple[str, float]:
        """Return the caller without whom the evidence is smallest, and ln of that evidence.

        trusted  callers that may move a verdict alone. ("", inf): only these have reported.
        """
        without = {
            name: reports.without.log_e_max
            for name, reports in self.by_name.items()
            if name not in trusted
        }
        return min(without.items(), key=lambda item: (item[1], item[0]), default=("", np.inf))

    def strongest_without(self) -> float:
        """Return ln of the largest evidence without one caller; -inf: nobody has reported."""
        return max((entry.without.log_e_max for entry in self.by_name.values()), default=-np.inf)

    @property
    def shares_text(self) -> str:
        """Each caller's part of the reports, for example `crm 61%, anonymous 39%`; empty: none."""
        total = sum(reports.keys for reports in self.by_name.values())
        by_size = sorted(self.by_name.items(), key=lambda item: (-item[1].keys, item[0]))
        return ", ".join(f"{name} {reports.keys / max(total, 1):.0%}" for name, reports in by_size)

    def to_proto(self) -> rollout_pb2.OutcomeCallersState:
        """Return everything for a checkpoint."""
        names, keys = sorted(self.by_name), sorted(self.reporters)
        number = {name: index + 1 for index, name in enumerate(names)}
        return rollout_pb2.OutcomeCallersState(
            callers=[
                rollout_pb2.OutcomeCallerState(
                    caller=name,
                    keys=self.by_name[name].keys,
                    without=tilt_to_proto(self.by_name[name].without),
                )
                for name in names
            ],
            keys=np.array(keys, dtype="<u8").tobytes(),
            reporters=[number.get(self.reporters[key], 0) for key in keys],
        )

    @staticmethod
    def from_proto(message: rollout_pb2.OutcomeCallersState) -> "OutcomeCallers":
        """Restore the callers of a checkpoint."""
        names = [CONFIRMED, *(entry.caller for entry in message.callers)]
        keys = np.frombuffer(message.keys, dtype="<u8").tolist()
        return OutcomeCallers(
            {
                entry.caller: CallerReports(entry.keys, tilt_from_proto(entry.without))
                for entry in message.callers
            },
            {key: names[number] for key, number in zip(keys, message.reporters, strict=True)},
        )


def _caller_of_each_key(reports: Mapping[str, ArmKeys]) -> dict[int, str]:
    """Return key -> its only caller in this second, or CONFIRMED."""
    callers: dict[int, str] = {}
    for caller, (candidate, baseline) in reports.items():
        for key in candidate | baseline:
            callers[key] = CONFIRMED if key in callers else caller
    return callers


def _has(arms: ArmKeys, key: int) -> bool:
    return key in arms[0] or key in arms[1]
