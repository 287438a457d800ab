"""Alarms become incidents of a real registry, once, with what else changed."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from monitoring.incidents.incident_opener import IncidentOpener, incident_title
from monitoring.incidents.other_changes import OtherChanges
from monitoring.jobs.grouping import MonitoringAlarm, group_alarms
from monitoring.looks.drift_look import DriftLook
from monitoring.store.look_store import LookOutcome, StoredFigure
from monitoring.store.served_versions import ServedVersion
from monitoring.watch.holdouts import HoldoutHistory
from monitoring.watch.minute_counts import MinuteCounts
from monitoring.watch.model_watcher import ModelWatcher
from protos import registry_pb2 as pb
from protos import window_pb2
from registry.client import RegistryClient
from registry.types import RegistryUnavailableError
from registry.watching.applied_policies import AppliedPolicies
from stats.figure import Figure
from tests.monitoring.watch.virtual_days import VirtualDays
from tests.registry.explanation.versions import version_files
from tests.registry.registry_fixture import registry_fixture, run_walk
from tests.tiny_models import linear_model, tiny_contract
from training.export.onnx_model import OnnxModel

DAY_S = 86_400
NOW_S = int(time.time()) + 3_600
"""After the changes that the tests make themselves."""
TODAY = NOW_S // DAY_S
PERSONS = 1_500


def alarm(
    model: str = "churn",
    *,
    at: int = 0,
    kind: str = "quality",
    stream: str = "missing usage:calls",
    view: str = "usage",
    host: str = "",
) -> MonitoringAlarm:
    """Return an alarm of version 1, of today."""
    moment = NOW_S + at
    return MonitoringAlarm(
        model=model,
        version="1",
        kind=kind,
        stream=stream,
        at=moment,
        since=moment - 600,
        view=view,
        host=host,
    )


def save(days: VirtualDays, position: int, *alarms: MonitoringAlarm) -> None:
    """Store alarms as a look does."""
    details = {item: {"hits": 104, "rows": 347} for item in alarms}
    outcome = LookOutcome(alarms=alarms, details=details)
    assert days.looks.save_look("churn", "1", "minutes", position, outcome)


class Beside:
    """A watcher of a registry, and the days that it looks at."""

    def __init__(self, registry: RegistryClient, days: VirtualDays) -> None:
        self.counts = MinuteCounts(days.store.find_version)
        self.changes = OtherChanges()
        self.watcher = ModelWatcher(
            registry,
            days.store,
            days.looks,
            days.rows,
            (DriftLook(days.looks),),
            self.counts,
            self.changes,
            AppliedPolicies(),
            HoldoutHistory(),
            now_s=lambda: TODAY * DAY_S + 7 * 3_600,
        )


@pytest.mark.walk
def test_drift_becomes_one_incident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten days of a real version, of which the last five have another input."""

    async def course() -> None:
        async with registry_fixture(tmp_path / "registry") as registry:
            # The version, and its days.
            rng = np.random.default_rng(3)
            metadata = {"turnout.contract": tiny_contract().model_contract}
            onnx = linear_model(3, metadata=metadata)
            fitted = rng.random((5_000, 3), dtype=np.float32)
            files = version_files(onnx, fitted, tiny_contract())
            async with registry.client("dana") as author:
                version = await author.register("churn", files)
            days = VirtualDays(tmp_path)
            for number in range(10):
                rows = rng.random((PERSONS, 3), dtype=np.float32)
                rows[:, 1] += 0.4 * (number >= 5)
                scores = OnnxModel(onnx).scores(rows)
                days.push(TODAY - 10 + number, rows, version=version.label, scores=scores)
            # The versions of a day are asked for once: those of the day, and those before.
            asked: list[tuple[int, int]] = []
            read = days.store.served_versions

            def served(first: int, last: int) -> list[ServedVersion]:
                asked.append((first, last))
                return read(first, last)

            monkeypatch.setattr(days.store, "served_versions", served)
            # All days are looked at, and the alarms are one incident.
            async with registry.client("monitoring") as client:
                beside = Beside(client, days)
                assert await beside.watcher.look_at_days() == 10
                assert len(asked) == 2 * 10
                assert await beside.watcher.look_at_days() == 0
                (incident,) = [
                    item for item in await client.list_incidents() if item.kind == "features"
                ]
                assert incident.severity == pb.Incident.REVIEW
                assert incident.version == version.label
                assert "f1" in incident.title
                figures = json.loads(incident.figures_json)
                assert figures["alarms"][0]["psi"]["value"] > 0.1
                assert days.looks.unreported_alarms() == []
                await beside.watcher.stop()
            days.store.close()

    run_walk(course())


@pytest.mark.walk
def test_a_broken_view_of_two_models_is_seen_once(tmp_path: Path) -> None:
    """The second model has an incident of the lowest severity, which its policy acts on."""

    async def course() -> None:
        async with registry_fixture(tmp_path / "registry") as registry:
            await registry.put_in_production()
            await registry.register(2, "fraud")
            days = VirtualDays(tmp_path)
            save(days, 1, alarm(), alarm(stream="missing usage:data_gb"), alarm("fraud"))
            async with registry.client("monitoring") as client:
                changes = OtherChanges()
                async for entries, _ in client.read_history():
                    for entry in entries:
                        changes.note_entry(entry)
                opener = IncidentOpener(days.looks, client, changes.since)
                assert await opener.report() == 1
                incidents = {item.model: item for item in await client.list_incidents()}
                first, second = incidents["churn"], incidents["fraud"]
                assert (first.severity, second.severity) == (pb.Incident.PAGE, pb.Incident.REVIEW)
                assert first.cause == second.cause == "view/usage"
                assert second.act == "hold"
                assert first.title.startswith("Broken data of view usage since ")
                shown = json.loads(first.figures_json)
                assert shown["alarms"][0]["hits"] == 104
                # The deployment of the test itself is what changed before.
                texts = [item["text"] for item in shown["changed_before"]]
                assert any("deploy model/churn" in text for text in texts)
                assert any(item["kind"] == "version" for item in shown["changed_before"])
                # The next look tells the same incident, which adds nothing to the history.
                save(days, 2, alarm(at=300))
                assert [await opener.report(), await opener.report()] == [1, 0]
                again = {item.model: item for item in await client.list_incidents()}
                assert (again["churn"].id, again["churn"].revision) == (first.id, first.revision)
                assert len(again) == 2
                found = days.looks.read_alarms(0, 2 * NOW_S)
                assert {item.incident_id for item in found} == {first.id}
            days.store.close()

    run_walk(course())


class Unavailable:
    """A registry that does not answer."""

    async def open_incident(self, *_arguments: object, **_fields: object) -> pb.OpenIncidentReply:
        """Raise what a client raises."""
        raise RegistryUnavailableError("the registry does not answer")


def test_alarms_wait_for_the_registry(tmp_path: Path) -> None:
    """They stay unreported, and nothing is lost."""

    async def course() -> None:
        days = VirtualDays(tmp_path)
        save(days, 1, alarm())
        opener = IncidentOpener(days.looks, Unavailable(), lambda _since: ())
        with pytest.raises(RegistryUnavailableError):
            await opener.report()
        assert len(days.looks.unreported_alarms()) == 1
        days.store.close()

    run_walk(course())


@pytest.mark.walk
def test_an_accepted_reference_is_read_from_the_history(tmp_path: Path) -> None:
    """A finding that is no reference, or names no days, accepts nothing."""

    async def course() -> None:
        async with registry_fixture(tmp_path / "registry") as registry:
            await registry.put_in_production()
            days = VirtualDays(tmp_path)
            text = json.dumps({"first_day": TODAY - 14, "last_day": TODAY - 1, "reason": "calm"})
            for kind, content in (("reference", "{}"), ("note", text), ("reference", text)):
                finding = pb.Finding(model="churn", version="1", kind=kind, text=content)
                await registry.cleo.write_finding(finding)
            async with registry.client("monitoring") as client:
                beside = Beside(client, days)
                await beside.watcher.look_at_days()
                (accepted,) = days.looks.accepted_references()
                assert (accepted.first_day, accepted.last_day) == (TODAY - 14, TODAY - 1)
                await beside.watcher.stop()
            days.store.close()

    run_walk(course())


@pytest.mark.walk
def test_the_newest_uplift_is_written_into_the_history_once(tmp_path: Path) -> None:
    """Monitoring writes it without the lease of rollouts, and writes nothing else."""

    async def course() -> None:
        async with registry_fixture(tmp_path / "registry") as registry:
            # Two periods were looked at.
            await registry.put_in_production()
            days = VirtualDays(tmp_path)
            for last_day, effect in ((TODAY - 40, 0.01), (TODAY - 12, 0.02)):
                figure = StoredFigure(
                    model="churn",
                    version="1",
                    kind="uplift",
                    name="effect churned",
                    last_day=last_day,
                    days=28,
                    figure=Figure(effect, effect - 0.005, effect + 0.005, 40_000),
                    details={"outcome": "churned"},
                )
                days.looks.save_figures([figure])
            days.push(TODAY - 1, np.zeros((5, 3), dtype=np.float32), version="1")
            # Two processes write one finding.
            async with registry.client("monitoring") as client:
                for _ in range(2):
                    beside = Beside(client, days)
                    await beside.watcher.look_at_days()
                    await beside.watcher.stop()
                found = [item async for item in client.findings() if item.kind == "figures"]
                assert [json.loads(item.text)["uplift"] for item in found] == [0.02]
            days.store.close()

    run_walk(course())


def window_batch(boot_id: int) -> window_pb2.WindowBatch:
    """Return an empty batch of one worker."""
    source = window_pb2.Source(gateway="gw-1", slot=2, boot_id=boot_id)
    return window_pb2.WindowBatch(source=source, sent_unix_ns=TODAY * DAY_S * 10**9)


def test_a_worker_that_starts_anew_is_a_change() -> None:
    """The first start that is heard of is none."""
    changes = OtherChanges()
    for boot_id in (5, 5, 6):
        changes.note_windows(window_batch(boot_id))
    (change,) = changes.since(0)
    assert (change.kind, change.subject) == ("restart", "gw-1")
    assert change.text == "worker 2 of gw-1 started anew"


@pytest.mark.parametrize(
    ("alarms", "title"),
    [
        ([alarm()], "Broken data of view usage since "),
        ([alarm(view="", kind="score", stream="score")], "Scores moved of churn since "),
        ([alarm(host="gw-3", view=""), alarm("fraud", host="gw-3", view="")], "host gw-3"),
    ],
)
def test_a_title_says_what_where_and_since_when(
    alarms: Sequence[MonitoringAlarm], title: str
) -> None:
    """It is one sentence."""
    (group,) = group_alarms(alarms)
    assert title in incident_title(group)
