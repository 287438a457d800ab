"""Tests of schedules that wait for data: ingests of a view, and labels that became known."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from features.ingest.load import ingest
from features.offline import OfflineStore
from project.definitions import ProjectDefinitions
from protos import registry_pb2 as pb
from tests.project.project_files import loaded, write_rows
from turnout.cli.context import context_from_options
from turnout.retraining.data_triggers import DataTriggers

pytestmark = pytest.mark.walk

CHURNED_ROWS = """
    SELECT 'C' || (i % 50) AS customer, now() - to_hours(i) AS at, i % 2 = 0 AS churned
    FROM range({count}) AS rows(i)
"""


@dataclass(frozen=True)
class Shop:
    """A project with rows, and what looks at them."""

    root: Path
    definitions: ProjectDefinitions
    triggers: DataTriggers

    def due(self, definition: dict[str, object], last: pb.Run | None = None) -> list[str]:
        """Return the triggers that a schedule of this definition has now.

        last  the schedule's last run.
        """
        item = pb.AppliedSchedule(
            project="shop",
            name="often",
            definition_json=json.dumps({"model": "churn", "setting": "candidate", **definition}),
            since_unix_ms=1,
            last_run=last,
        )
        requests = self.triggers.due(self.definitions, [item])
        assert {request.schedule for request in requests} <= {"shop/often"}
        return [request.key.partition("@")[2] for request in requests]

    def ingest(self) -> Path:
        """Ingest the view; return the folder of its ingests."""
        view = self.definitions.view("usage")
        store = OfflineStore(self.root / "offline")
        ingest(view, store, root=self.root, created_ms=0)
        return store.folder(view)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A project whose rows are not ingested yet."""
    root = tmp_path_factory.mktemp("shop")
    environment = 'mode = "development"\noffline = "offline"\n'
    definitions = loaded(root, {"environments/dev.toml": environment}).required()
    write_rows(root)
    context = context_from_options("", "near:1", "", "ann", False, {}, project=str(root))
    return Shop(root, definitions, DataTriggers(context))


def test_view_makes_a_model_due_once_for_each_ingest(shop: Shop) -> None:
    """An ingest that a run has had does not, and compaction is none."""
    after_view: dict[str, object] = {"after_view": "usage"}
    assert shop.due(after_view) == []
    folder = shop.ingest()
    assert shop.due(after_view) == ["ingest-1"]
    newest_ms = max(path.stat().st_mtime_ns for path in folder.rglob("*")) // 1_000_000
    assert shop.due(after_view, pb.Run(taken_unix_ms=newest_ms + 1)) == []
    shop.ingest()
    assert shop.due(after_view) == ["ingest-2"]
    OfflineStore(shop.root / "offline").compact(shop.definitions.view("usage"))
    assert shop.due(after_view) == ["ingest-2"]


def test_labels_make_a_model_due_when_enough_are_new(shop: Shop) -> None:
    """They are compared with the rows that the last run was trained on."""
    new_labels: dict[str, object] = {"new_labels": 10}
    write_rows(shop.root, CHURNED_ROWS.format(count=25), "data/churned.parquet")
    assert shop.due(new_labels) == ["labels-2"]
    trained = pb.Run(result_json=b'{"data":{"rows":20}}')
    assert shop.due(new_labels, trained) == []
    write_rows(shop.root, CHURNED_ROWS.format(count=30), "data/churned.parquet")
    assert shop.due(new_labels, trained) == ["labels-3"]


def test_data_that_cannot_be_read_makes_nothing_due(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    """The runner goes on with the other schedules, and its log says what is wrong."""
    (shop.root / "data" / "churned.parquet").unlink(missing_ok=True)
    assert shop.due({"new_labels": 10}) == []
    assert "schedule often cannot look at its data" in caplog.text
    assert shop.due({"after_view": "calls"}) == []
    assert shop.due({"model": "Churn!", "cron": "0 4 * * *"}) == []
