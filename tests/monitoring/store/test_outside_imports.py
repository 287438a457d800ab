"""Imports of models elsewhere: each row once, found by its outcomes, and refused with its fault."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from monitoring.api.decision_policy import day_of_id
from monitoring.api.outside_imports import OutsideImports, served_entities
from monitoring.api.reader_policies import ReaderPolicies
from monitoring.api.removal import PersonRemoval
from monitoring.cells.cell import CellCounts
from monitoring.cells.outcome_columns import OutcomeKind
from monitoring.decisions.answered_rows import AnsweredRows
from monitoring.decisions.decision_store import DecisionStore
from monitoring.errors import BadImportError, SequenceError
from monitoring.store.cell_rows import sum_of_cells
from monitoring.store.database import MonitoringDatabase
from monitoring.store.monitoring_store import MonitoringStore
from protos import monitoring_pb2 as pb
from protos import registry_pb2
from stats.score_grid import bins_by_edges, score_grid_edges
from turnout.monitoring.import_files import OutcomeRow, ScoreRow
from turnout.monitoring.import_parts import outcomes_parts, scores_parts

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
AT_MS = 490_000 * HOUR_MS
NOW_MS = AT_MS + 40 * DAY_MS


@dataclass(frozen=True)
class KnownModel:
    """A model that is written down as one that runs elsewhere."""

    model: str


@dataclass(frozen=True)
class KnownContract:
    """The part of a contract that imports read."""

    entities: tuple[str, ...]


class KnownModels:
    """The registry's lists of models."""

    async def outside_models(self) -> list[KnownModel]:
        """Return one model."""
        return [KnownModel("nps")]

    async def list_models(self) -> list[registry_pb2.ModelSummary]:
        """Return two models that have versions here, of which one is deployed, and one without."""
        deployment = registry_pb2.Deployment(production="3")
        return [
            registry_pb2.ModelSummary(model="bought"),
            registry_pb2.ModelSummary(model="nba", deployment=deployment),
            registry_pb2.ModelSummary(model="empty"),
        ]

    async def list_versions(self, model: str) -> list[registry_pb2.Version]:
        """Return the versions of a model that is not deployed, oldest first."""
        labels = {"bought": ("1", "2"), "empty": ()}[model]
        return [registry_pb2.Version(label=label) for label in labels]

    async def fetch_contract(self, model: str, version: str) -> KnownContract:
        """Return what rows are keyed by."""
        entities = {("bought", "2"): ("subscriber",), ("nba", "3"): ("subscriber", "offer")}
        return KnownContract(entities[model, version])


class Imported:
    """Monitoring that takes imports."""

    def __init__(self, folder: Path, url: str) -> None:
        database = MonitoringDatabase(url)
        self.decisions = DecisionStore(folder / "decisions", database, day_of_id)
        self.store = MonitoringStore(database, lambda: NOW_MS, self.decisions.add_batch)
        self._rows = AnsweredRows(folder / "decisions", database)

    def take(self, *parts: pb.ScoresPart | pb.OutcomesPart) -> list[pb.ImportReply]:
        """Take parts in order."""

        async def run() -> list[pb.ImportReply]:
            policies = ReaderPolicies()
            policies.apply({}, 0, {}, {})
            with ThreadPoolExecutor(1) as thread:
                imports = OutsideImports(
                    KnownModels(),  # type: ignore[arg-type]
                    self.store,
                    self._rows,
                    policies,
                    thread,
                    lambda: NOW_MS / 1e3,
                )
                return [
                    await imports.import_scores(part)
                    if isinstance(part, pb.ScoresPart)
                    else await imports.import_outcomes(part)
                    for part in parts
                ]

        return asyncio.run(run())

    def scores(self, rows: Sequence[ScoreRow]) -> list[pb.ImportReply]:
        """Import scores as the command does."""
        return self.take(*scores_parts("nps", rows))

    def outcomes(self, rows: Sequence[OutcomeRow]) -> list[pb.ImportReply]:
        """Import outcomes as the command does."""
        return self.take(*outcomes_parts("nps", rows))

    def counts(self, version: str) -> CellCounts:
        """Return the sum of the cells of a version."""
        return sum_of_cells(self.store.read_cells(0, 10**9, model="nps", version=version))

    def forget(self, **ids: str) -> pb.ForgetReply:
        """Remove a person."""
        with ThreadPoolExecutor(1) as thread:
            removal = PersonRemoval(self.store, self.decisions, thread, lambda: None)
            return asyncio.run(removal.forget(pb.ForgetRequest(ids=ids)))


@pytest.fixture
def imported(tmp_path: Path, database_url: str) -> Iterator[Imported]:
    """Return an empty monitoring with either database."""
    opened = Imported(tmp_path, database_url)
    yield opened
    opened.store.close()


def score(key: str, value: float, hours: int = 0, version: str = "a", name: str = "") -> ScoreRow:
    """Return a score, *hours* after the first."""
    return ScoreRow(key, AT_MS + hours * HOUR_MS, value, version, name)


def outcome(key: str, value: float, hours: int, name: str = "") -> OutcomeRow:
    """Return an outcome by key, or by prediction *name*."""
    return OutcomeRow("" if name else key, name, AT_MS + hours * HOUR_MS, "left", value)


def test_scores_are_counted_once_by_version_and_hour(imported: Imported) -> None:
    """Rows that come again change nothing, also after a part of them."""
    rows = [score("C1", 0.25), score("C2", 0.75), score("C1", 0.5, 1), score("C1", 0.5, 0, "b")]
    parts = scores_parts("nps", rows)
    assert [reply.known for reply in imported.take(parts[0])] == [False]
    assert [reply.known for reply in imported.scores(rows)] == [True, False]
    assert [reply.known for reply in imported.scores(rows)] == [True, True]
    cells = imported.store.read_cells(0, 10**9)
    assert {(cell.key.version, cell.key.hour - 490_000, cell.counts.rows) for cell in cells} == {
        ("elsewhere:a", 0, 2),
        ("elsewhere:a", 1, 1),
        ("elsewhere:b", 0, 1),
    }
    binned = bins_by_edges(np.array([0.25, 0.5, 0.75], np.float32), score_grid_edges())
    found = imported.counts("elsewhere:a").counts("score:score")
    assert np.flatnonzero(found).tolist() == binned.tolist()
    coverage = {item.version: item.rows for item in imported.store.coverage(0, 10**9)}
    assert coverage == {"elsewhere:a": 3, "elsewhere:b": 1}
    assert imported.decisions.rows() == 4
    # No reader of a journal is waited for.
    assert imported.store.reader_statuses() == []


def test_outcome_belongs_to_the_newest_score_before_it(imported: Imported) -> None:
    """By key, in blocks and in files; a key without an earlier score belongs to no version."""
    imported.scores([score("C1", 0.25), score("C1", 0.75, 5, "b"), score("C2", 0.5)])
    imported.decisions.compact()
    imported.scores([score("C1", 0.5, 9)])
    rows = [outcome("C1", 1, 4), outcome("C1", 1, 6), outcome("C1", 0, 30), outcome("C9", 1, 4)]
    (reply,) = imported.outcomes(rows)
    assert (reply.rows, reply.unattributed) == (4, 1)
    found = imported.counts("elsewhere:a")
    edges = score_grid_edges()
    (low,) = bins_by_edges(np.array([0.25], np.float32), edges)
    (half,) = bins_by_edges(np.array([0.5], np.float32), edges)
    assert np.flatnonzero(found.counts("outcome:left:positive")).tolist() == [low]
    assert np.flatnonzero(found.counts("outcome:left:negative")).tolist() == [half]
    assert imported.counts("elsewhere:b").counts("outcome:left:positive").sum() == 1
    lost = imported.counts("").counts("outcome:left:events", len(OutcomeKind))
    assert lost[OutcomeKind.BY_ENTITY] == 1
    # The same outcomes in another file are duplicates, and another value is a correction.
    again = [outcome("C1", 1, 4), outcome("C1", 0, 6), outcome("C2", 1, 1)]
    imported.outcomes(again)
    kinds = imported.counts("elsewhere:a").counts("outcome:left:events", len(OutcomeKind))
    assert (kinds[OutcomeKind.DUPLICATE], kinds[OutcomeKind.COUNTED]) == (1, 3)
    assert imported.counts("elsewhere:b").counts("outcome:left:negative").sum() == 1


@pytest.mark.parametrize("kept", ["block", "file"])
def test_outcome_is_found_by_the_name_of_its_prediction(imported: Imported, kept: str) -> None:
    """Also when the same key was scored later."""
    imported.scores([score("C1", 0.25, name="p1"), score("C1", 0.5, 1, "b", "p2")])
    if kept == "file":
        imported.decisions.compact()
    (reply,) = imported.outcomes([outcome("C1", 1, 2, "p1"), outcome("C1", 1, 2, "p3")])
    assert reply.unattributed == 1
    assert imported.counts("elsewhere:a").counts("outcome:left:positive").sum() == 1
    assert imported.counts("elsewhere:b").counts("outcome:left:positive").sum() == 0


def test_scores_that_are_no_probabilities_have_bins_of_their_first_import(
    imported: Imported,
) -> None:
    """And a version of probabilities takes no others."""
    imported.scores([score(f"C{number}", float(number)) for number in range(100)])
    imported.scores([score("C1", -5.0), score("C2", 1e6)])
    counts = imported.counts("elsewhere:a").counts("score:score", 20)
    assert (counts[:20].sum(), counts[0], counts[19]) == (102, 6, 6)
    imported.scores([score("C1", 0.5, 0, "p")])
    with pytest.raises(BadImportError, match="are probabilities since its first import"):
        imported.scores([score("C1", 1.5, 0, "p")])


BAD_PARTS: list[tuple[dict[str, object], str]] = [
    ({"model": "churn"}, "'churn' is no model elsewhere.*Known are: nps"),
    (
        {"model": "bought"},
        "'bought' has versions here, and only scores of models elsewhere are imported",
    ),
    ({"version": "a b/c"}, "version 'a b/c' is no version; it has 1 to 64 letters"),
    ({"scores": np.array([0.5, np.nan], "<f4").tobytes()}, "NaN or infinite"),
    ({"at_unix_ms": np.array([AT_MS, NOW_MS + DAY_MS], "<i8").tobytes()}, "in the future"),
    ({"at_unix_ms": np.array([AT_MS, 0], "<i8").tobytes()}, "older than the five years"),
    ({"scores": bytes(4)}, "2 times and 1 scores"),
    ({"scores": bytes(7)}, "column of scores is cut"),
    ({"keys": ["C1"]}, "1 keys"),
    ({"keys": ["C1", ""]}, "a key is empty"),
    ({"predictions": ["p1"]}, "1 predictions"),
    ({"content_digest": b"short"}, "32 bytes"),
    ({"at_unix_ms": b"", "scores": b"", "keys": []}, "a part has 1 to"),
]


def test_bad_part_is_refused_and_nothing_is_stored(imported: Imported) -> None:
    """A program may send what the command never sends."""
    for change, fault in BAD_PARTS:
        (part,) = scores_parts("nps", [score("C1", 0.5), score("C2", 0.5)])
        for name, value in change.items():
            part.ClearField(name)
            part.MergeFrom(pb.ScoresPart(**{name: value}))  # type: ignore[arg-type]
        with pytest.raises(BadImportError, match=fault):
            imported.take(part)
    assert imported.store.read_cells(0, 10**9) == []
    assert imported.decisions.rows() == 0


def test_bad_outcomes_are_refused(imported: Imported) -> None:
    """NaN, and parts that do not follow."""
    (part,) = outcomes_parts("nps", [outcome("C1", float("nan"), 1)])
    with pytest.raises(BadImportError, match="a value is NaN"):
        imported.take(part)
    (part,) = outcomes_parts("nps", [outcome("C1", 1, 1)])
    part.number = 3
    with pytest.raises(SequenceError, match="part 3 does not follow part 0"):
        imported.take(part)


def test_outcomes_of_a_model_that_is_served_here_wait_for_their_predictions(
    imported: Imported,
) -> None:
    """Once, by key only; those of a model that nothing is known of are refused."""
    rows = [outcome("C1", 1, 2), outcome("C2", 0, 3)]
    for known in (False, True):
        (reply,) = imported.take(*outcomes_parts("bought", rows))
        assert (reply.rows, reply.known, reply.unattributed) == (2, known, 0)
        assert imported.store.outcome_backlogs()["bought"].number == 2
    waiting = imported.store.due_outcomes("bought", NOW_MS + DAY_MS, 10)
    assert [(item.keys, item.value) for item in waiting] == [(("C1",), 1.0), (("C2",), 0.0)]
    with pytest.raises(BadImportError, match="'bought' is served here: an outcome by prediction"):
        imported.take(*outcomes_parts("bought", [outcome("", 1, 2, "p1")]))
    with pytest.raises(BadImportError, match="'churn' is no model elsewhere"):
        imported.take(*outcomes_parts("churn", rows))
    assert imported.store.outcome_backlogs()["bought"].number == 2


def test_outcomes_of_a_model_of_several_entities_have_an_id_of_each(imported: Imported) -> None:
    """In the model's order; a row with one too few or too many is refused with its part."""
    rows = [outcome("S1\x1fO7", 1, 2), outcome("S1\x1fO8", 0, 2)]
    (reply,) = imported.take(*outcomes_parts("nba", rows))
    assert reply.waiting == 2
    waiting = imported.store.due_outcomes("nba", NOW_MS + DAY_MS, 10)
    assert [item.keys for item in waiting] == [("S1", "O7"), ("S1", "O8")]
    for model, key, number in (
        ("nba", "S1", "1"),
        ("nba", "S\x1fO\x1fX", "3"),
        ("bought", "S\x1fO", "2"),
    ):
        fault = f"a row has {number} ids, and rows of '{model}' are keyed by subscriber"
        with pytest.raises(BadImportError, match=fault):
            imported.take(*outcomes_parts(model, [outcome(key, 1, 2)]))
    (part,) = outcomes_parts("nba", rows)
    part.keys.append("S9")
    with pytest.raises(BadImportError, match=r"a row has 2\.5 ids"):
        imported.take(part)
    with pytest.raises(BadImportError, match="a key is empty"):
        imported.take(*outcomes_parts("nba", [outcome("S1\x1f", 1, 2)]))
    with pytest.raises(BadImportError, match="a row of 'nps', which runs elsewhere, has one key"):
        imported.take(*outcomes_parts("nps", rows))
    assert imported.store.outcome_backlogs()["nba"].number == 2


@pytest.mark.walk
def test_person_is_removed_from_models_elsewhere(imported: Imported) -> None:
    """Whatever the person is called there; the scores of others stay."""
    imported.scores([score("C1", 0.25), score("C2", 0.5)])
    imported.decisions.compact()
    imported.scores([score("C1", 0.75, 2, "b"), score("C2", 0.5, 2, "b")])
    imported.outcomes([outcome("C1", 1, 3), outcome("C2", 1, 3)])
    assert imported.forget(customer="C1", offer="C2") == pb.ForgetReply()
    removed = imported.forget(customer="C1")
    assert (removed.calls, removed.outcomes, removed.unknown_rows) == (2, 1, 0)
    assert imported.decisions.rows() == 2
    # Its outcome is found by the key hash, too, when its score is kept no more.
    imported.decisions.delete_blocks_before(10**9)
    assert imported.forget(customer="C2").outcomes == 1


@pytest.mark.parametrize(
    ("model", "entities"),
    [
        ("nba", ("subscriber", "offer")),
        ("bought", ("subscriber",)),
        ("empty", None),
        ("nps", None),
    ],
)
def test_entities_come_from_production_or_the_newest_version(
    model: str, entities: tuple[str, ...] | None
) -> None:
    """None: it has no version here, though the list of models may have it."""
    assert asyncio.run(served_entities(KnownModels(), model)) == entities  # type: ignore[arg-type]
