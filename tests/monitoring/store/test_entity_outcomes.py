"""Outcomes by entity and time get the prediction that they are about, each once."""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pytest

from host.clock import DAY_MS, HOUR_MS
from monitoring.api.decision_policy import day_of_id
from monitoring.api.entity_outcomes import (
    AGAIN_MS,
    GIVEN_UP_MS,
    PAGE,
    REST_S_MAX,
    SEARCH_SHARE,
    EntityOutcomes,
    SearchRests,
)
from monitoring.api.outcome_segments import OutcomeSegments
from monitoring.api.reader_policies import ReaderPolicies
from monitoring.cells.cell import CellCounts
from monitoring.cells.decision_rows import SAMPLE_ALL, join_batches, sample_decisions
from monitoring.cells.outcome_columns import OutcomeKind, id_digest
from monitoring.decisions.answered_rows import AnsweredRow, AnsweredRows
from monitoring.decisions.decision_store import DecisionStore
from monitoring.decisions.person_rows import DecisionPerson
from monitoring.decisions.scored_inputs import ScoredRows
from monitoring.errors import UnreadableDecisionsError
from monitoring.store.cell_rows import sum_of_cells
from monitoring.store.database import MonitoringDatabase
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.store.waiting_outcomes import ARRIVAL_MS, OutcomeBacklog
from protos import monitoring_pb2 as pb
from protos.journal_pb2 import UNSEEN_SHADOW, ServedBatch
from registry.watching.policy import MonitoringPolicy, OutcomePolicy, Segmentation
from stats.score_grid import bins_by_edges, score_grid_edges
from tests.monitoring.served import AT_NS, churn_bins, served_batch

AT_MS = AT_NS // 10**6
NAME = pb.JournalName(gateway="gateway-1")
CHURNED = OutcomePolicy(positive_when=">= 1", horizon="30d")
SHADOW = UNSEEN_SHADOW


class Reported:
    """Monitoring to which predictions and outcomes by entity are pushed."""

    def __init__(self, folder: Path, url: str) -> None:
        self.database = MonitoringDatabase(url)
        self.folder = folder / "decisions"
        self.decisions = DecisionStore(self.folder, self.database, day_of_id)
        self.store = MonitoringStore(self.database, lambda: 0, self.decisions.add_batch)
        self.store.save_version(churn_bins())
        self.policies = ReaderPolicies()
        self.apply()
        found = ScoredRows(self.folder, self.database)
        self.segments = OutcomeSegments(found, self.store.find_version)
        self.rows = AnsweredRows(self.folder, self.database)
        self.now_ms = AT_MS + 90 * DAY_MS
        self.job = self.job_with(self.policies)
        self._sequence = 0

    def apply(self, policy: MonitoringPolicy | None = None) -> None:
        """Apply a policy of churn."""
        policy = policy or MonitoringPolicy(outcomes={"churned": CHURNED})
        self.policies.apply({"churn": policy}, 0, {}, {})

    def job_with(self, policies: ReaderPolicies) -> EntityOutcomes:
        """Return the job with these policies."""
        return EntityOutcomes(
            self.store, self.rows, self.segments, policies, lambda: self.now_ms / 1e3
        )

    def push(self, served: ServedBatch | None = None, *events: pb.OutcomeEvent) -> None:
        """Push rows and outcomes, as a reader does."""
        self._sequence += 1
        batch = pb.CellBatch(journal=NAME, sequence=self._sequence, outcomes=events)
        for joined in join_batches([] if served is None else [served]):
            holdout = np.zeros(len(joined.role), dtype=np.bool_)
            batch.decisions.extend(sample_decisions(joined, holdout, SAMPLE_ALL))
        self.store.push(batch)

    def counts(self, segment: str = "", version: str = "7") -> CellCounts:
        """Return the sum of the cells of a version."""
        return sum_of_cells(self.store.read_cells(0, 10**9, version=version, segment=segment))

    def waiting(self) -> int:
        """Return how many outcomes wait."""
        return sum(item.number for item in self.store.outcome_backlogs().values())

    def kinds(self, version: str = "7") -> dict[OutcomeKind, int]:
        """Return what became of the reports."""
        found = self.counts(version=version).counts("outcome:churned:events", len(OutcomeKind))
        return {kind: int(found[kind]) for kind in OutcomeKind if found[kind]}

    def counted_of(self, served: ServedBatch) -> list[tuple[int, int]]:
        """Return (call, row) of each prediction of a batch that has an outcome."""
        ids = [served.prediction_ids[start : start + 64] for start in range(0, 64 * 9, 64)]
        numbers = {id_digest(item): number for number, item in enumerate(ids) if item}
        with self.database.read_transaction() as connection:
            rows = connection.exec_driver_sql("SELECT id_digest, row FROM outcomes").all()
        found = [(numbers.get(bytes(digest), -1), row) for digest, row in rows]
        return sorted(item for item in found if item[0] >= 0)


@pytest.fixture
def reported(tmp_path: Path, database_url: str) -> Iterator[Reported]:
    """Return an empty monitoring with either database."""
    opened = Reported(tmp_path, database_url)
    yield opened
    opened.store.close()


def calls(*entities: str, day: int = 0, first: int = 0, role: int = 1) -> ServedBatch:
    """Return calls of one row, each about one entity."""
    batch = served_batch(
        np.random.default_rng(first + 1),
        len(entities),
        rows_max=1,
        first=first,
        at_ns=AT_NS + day * DAY_MS * 10**6,
        role=role,
    )
    del batch.entity_ids[:]
    batch.entity_ids.extend(entities)
    return batch


def outcome(entity: str, day: float, value: float = 1.0) -> pb.OutcomeEvent:
    """Return a report about an entity as a reader pushes it, *day* days after the first call."""
    at_ms = AT_MS + round(day * DAY_MS)
    return pb.OutcomeEvent(
        model="churn",
        keys=[entity],
        name="churned",
        value=value,
        event_unix_ms=at_ms,
        received_unix_ms=at_ms + 1_000,
    )


@pytest.mark.parametrize("kept", ["block", "file"])
@pytest.mark.parametrize(("rule", "expected"), [("last", 1), ("first", 0)])
def test_outcome_belongs_to_the_answer_that_the_policy_names(
    reported: Reported, kept: str, rule: str, expected: int
) -> None:
    """The newest before the event, or the oldest in the horizon; shadows answer no caller."""
    policy = OutcomePolicy(positive_when=">= 1", horizon="30d", attribution=rule)  # type: ignore[arg-type]
    reported.apply(MonitoringPolicy(outcomes={"churned": policy}))
    batches = [calls("S1", "S2", day=day, first=10 * day) for day in (0, 9, 12)]
    for batch in batches:
        reported.push(batch)
    reported.push(calls("S1", day=11, first=900, role=SHADOW))
    if kept == "file":
        reported.decisions.compact()
    reported.push(None, outcome("S1", 11.5))
    assert reported.kinds() == {}
    assert reported.waiting() == 1
    assert reported.job.attribute() == 1
    assert [reported.counted_of(batch) for batch in batches[:2]] == (
        [[], [(0, 0)]] if expected else [[(0, 0)], []]
    )
    assert reported.kinds() == {OutcomeKind.COUNTED: 1}
    assert reported.waiting() == 0
    assert reported.job.attribute() == 0


def test_outcome_counts_by_the_score_and_segments_of_its_prediction(reported: Reported) -> None:
    """As if its prediction id had been reported; so another value is a correction."""
    segment = Segmentation(feature="f1", ranges={"low": (-9.0, 1.0)})
    policy = MonitoringPolicy(outcomes={"churned": CHURNED}, segments={"usage": segment})
    reported.apply(policy)
    batch = calls("S1", "S2")
    batch.vectors = np.array([(0, 0, 0), (0, 3, 0)], "<f4").tobytes()
    batch.scores = np.array([0.125, 0.875], "<f4").tobytes()
    reported.push(batch, outcome("S1", 2), outcome("S2", 2), outcome("S2", 3, 0.0))
    reported.job.attribute()
    positive = reported.counts().counts("outcome:churned:positive")
    expected = bins_by_edges(np.array([0.125], np.float32), score_grid_edges())
    assert np.flatnonzero(positive).tolist() == expected.tolist()
    assert reported.counts("usage=low").counts("outcome:churned:positive").sum() == 1
    assert reported.counts("usage=other").counts("outcome:churned:negative").sum() == 1
    assert reported.kinds() == {OutcomeKind.COUNTED: 2, OutcomeKind.CORRECTED: 1}


def test_outcome_without_an_answer_waits_a_day_and_belongs_to_none(reported: Reported) -> None:
    """Outside the horizon, before the answer, and of another entity; a late answer is found."""
    reported.now_ms = AT_MS + 100 * DAY_MS
    events = [outcome("S1", 31), outcome("S2", -1), outcome("S3", 2), outcome("S4", 2)]
    for event in events:
        event.received_unix_ms = reported.now_ms
    reported.push(calls("S1", "S2"), *events)
    # The decisions of other gateways may not be there yet.
    assert reported.job.attribute() == 0
    reported.now_ms += ARRIVAL_MS
    assert reported.job.attribute() == 4
    assert (reported.kinds(), reported.waiting()) == ({}, 4)
    assert reported.job.attribute() == 0
    reported.push(calls("S4", first=50))
    reported.now_ms += AGAIN_MS
    assert reported.job.attribute() == 4
    assert reported.kinds() == {OutcomeKind.COUNTED: 1}
    # A day after the report the other three belong to no prediction.
    reported.now_ms += GIVEN_UP_MS
    assert reported.job.attribute() == 3
    assert reported.kinds(version="") == {OutcomeKind.BY_ENTITY: 3}
    assert reported.waiting() == 0
    # The look at that day counts them; the day of their report was looked at before.
    (cell,) = [cell for cell in reported.store.read_cells(0, 10**9) if not cell.key.version]
    assert cell.key.hour == reported.now_ms // HOUR_MS


def test_outcomes_wait_until_the_policies_were_read(reported: Reported) -> None:
    """Before, their horizon is not known."""
    reported.push(calls("S1"), outcome("S1", 2))
    assert reported.job_with(ReaderPolicies()).attribute() == 0
    assert reported.job.attribute() == 1


def test_outcome_of_an_unseen_name_may_be_about_any_kept_answer(reported: Reported) -> None:
    """Without a policy there is no horizon."""
    event = outcome("S1", 80)
    event.name = "complained"
    reported.push(calls("S1"), event)
    reported.job.attribute()
    assert reported.counts().counts("outcome:complained:positive").sum() == 1


def test_all_wait_on_while_a_file_cannot_be_read(reported: Reported) -> None:
    """What was found is counted with what was not, or nothing is."""
    reported.push(calls("S1"), outcome("S1", 2))
    reported.decisions.compact()
    (path,) = reported.folder.rglob("*.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:100])
    with pytest.raises(UnreadableDecisionsError, match="cannot be read"):
        reported.job.attribute()
    assert (reported.kinds(), reported.waiting()) == ({}, 1)
    path.write_bytes(content)
    # Meanwhile the outcomes of other models come first.
    assert reported.job.attribute() == 0
    reported.now_ms += ARRIVAL_MS
    reported.job.attribute()
    assert reported.kinds() == {OutcomeKind.COUNTED: 1}


def test_more_outcomes_than_a_page_are_attributed_page_by_page(reported: Reported) -> None:
    """Each once, whatever the order in which they came."""
    entities = [f"S{number}" for number in range(PAGE + 7)]
    reported.push(calls(*entities), *(outcome(entity, 1) for entity in entities))
    assert [reported.job.attribute() for _ in range(3)] == [PAGE, 7, 0]
    assert reported.kinds() == {OutcomeKind.COUNTED: PAGE + 7}


class SlowRows(AnsweredRows):
    """Answers of *reported* whose searches take *search_s* of its clock each."""

    def __init__(self, reported: Reported, search_s: float) -> None:
        super().__init__(reported.folder, reported.database)
        self.reported = reported
        self.search_s = search_s
        self.searches = 0

    def of_entities(
        self, model: str, keys: Collection[tuple[str, ...]], first_day: int, last_day: int
    ) -> list[AnsweredRow]:
        """Return the rows, and move the clock."""
        self.searches += 1
        self.reported.now_ms += round(1_000 * self.search_s)
        return super().of_entities(model, keys, first_day, last_day)


def test_after_a_search_for_few_outcomes_those_that_follow_are_searched_together(
    reported: Reported,
) -> None:
    """The longer a search took, the later; each outcome counts once."""
    reported.rows = rows = SlowRows(reported, 2.0)
    job = reported.job_with(reported.policies)
    entities = [f"S{number}" for number in range(12)]
    reported.push(calls(*entities), outcome(entities[0], 1))
    assert job.attribute() == 1
    # A rest of 100 s follows, in which an outcome comes each ten seconds.
    for entity in entities[1:10]:
        reported.now_ms += 10_000
        reported.push(None, outcome(entity, 1))
        assert job.attribute() == 0
    reported.now_ms += 10_001
    assert job.attribute() == 9
    assert rows.searches == 2
    # A start begins without a rest.
    reported.push(None, *(outcome(entity, 1) for entity in entities[10:]))
    assert job.attribute() == 0
    assert reported.job_with(reported.policies).attribute() == 2
    assert (reported.kinds(), reported.waiting()) == ({OutcomeKind.COUNTED: 12}, 0)


def test_a_whole_page_is_searched_for_while_its_model_rests(reported: Reported) -> None:
    """A search for thousands is worth its time, so no rest follows it; the remainder rests."""
    reported.rows = SlowRows(reported, 2.0)
    job = reported.job_with(reported.policies)
    entities = [f"S{number}" for number in range(PAGE + 8)]
    reported.push(calls(*entities), outcome(entities[0], 1))
    assert job.attribute() == 1
    reported.push(None, *(outcome(entity, 1) for entity in entities[1:]))
    assert [job.attribute() for _ in range(2)] == [PAGE, 0]
    reported.now_ms += 100_000
    assert [job.attribute() for _ in range(2)] == [7, 0]
    assert reported.kinds() == {OutcomeKind.COUNTED: PAGE + 8}


@pytest.mark.parametrize(("search_s", "share_max"), [(1.0, SEARCH_SHARE), (40.0, 5 * 40 / 3_600)])
def test_searches_for_a_trickle_take_a_bounded_share_of_the_time(
    reported: Reported, search_s: float, share_max: float
) -> None:
    """Five models have an outcome each five minutes; none waits for much more than an hour."""
    reported.rows = rows = SlowRows(reported, search_s)
    job = reported.job_with(reported.policies)
    models = [f"m{number}" for number in range(5)]
    began_ms = reported.now_ms
    next_ms, oldest_s = began_ms, 0.0
    while reported.now_ms < began_ms + 4 * HOUR_MS:
        # What came meanwhile, and then what can be done in this minute.
        while next_ms <= reported.now_ms:
            events = [outcome("S1", 1) for _ in models]
            for model, event in zip(models, events, strict=True):
                event.model = model
                event.received_unix_ms = next_ms - ARRIVAL_MS
            reported.push(None, *events)
            next_ms += 300_000
        while job.attribute():
            pass
        # No answer is found, so those that were searched for are due hours later.
        due = [
            item
            for model in models
            for item in reported.store.due_outcomes(model, reported.now_ms, PAGE)
        ]
        waits_ms = [reported.now_ms - item.received_unix_ms - ARRIVAL_MS for item in due]
        oldest_s = max([oldest_s, *(wait / 1e3 for wait in waits_ms)])
        reported.now_ms += 60_000
    # The first search of each model is at once.
    share = (rows.searches - 5) * search_s / (reported.now_ms - began_ms) * 1e3
    assert 0.7 * share_max <= share <= share_max
    assert oldest_s <= REST_S_MAX + 5 * search_s + 60


def test_a_clock_that_is_put_back_ends_all_rests() -> None:
    """Otherwise they would last until it has caught up."""
    rests = SearchRests()
    rests.add("churn", 1_000.0, 1_002.0)
    assert [rests.rests("churn", now_s) for now_s in (1_002.0, 1_101.9, 1_102.1)] == [
        True,
        True,
        False,
    ]
    assert not rests.rests("churn", 1_102.0 - REST_S_MAX - 1.0)
    assert not rests.rests("nps", 1_003.0)


def test_backlog_has_the_number_and_the_oldest_report_of_each_model(reported: Reported) -> None:
    """From the report on, and none once all are counted."""
    events = [outcome("S1", 2), outcome("S2", 1), outcome("S3", 3)]
    events[2].model = "nps"
    assert reported.store.outcome_backlogs() == {}
    reported.push(calls("S1", "S2"), *events)
    assert reported.store.outcome_backlogs() == {
        "churn": OutcomeBacklog(2, events[1].received_unix_ms),
        "nps": OutcomeBacklog(1, events[2].received_unix_ms),
    }
    assert reported.job.attribute() == 2
    assert list(reported.store.outcome_backlogs()) == ["nps"]


def test_a_report_that_can_never_count_does_not_wait(reported: Reported) -> None:
    """NaN is no value, and a report without keys, as old readers push it, cannot be attributed."""
    without_keys, no_number = outcome("S1", 1), outcome("S1", 1, float("nan"))
    del without_keys.keys[:]
    reported.push(calls("S1"), without_keys, no_number)
    assert reported.waiting() == 0
    assert reported.kinds(version="") == {OutcomeKind.BY_ENTITY: 1, OutcomeKind.NO_NUMBER: 1}


def test_removal_of_a_person_takes_waiting_outcomes(reported: Reported) -> None:
    """Those of the person's entity only, whatever other entities the row has."""
    person = DecisionPerson({"customer": "S1"}, {"churn": {"7": ("offer", "customer")}}, {})
    events = [outcome("S1", 1), outcome("S1", 1), outcome("S2", 1)]
    for event, keys in zip(events, (("O1", "S1"), ("S1", "S2"), ("O1", "S2")), strict=True):
        event.keys[:] = keys
    reported.push(None, *events)
    for dry_run, left in ((True, 3), (False, 2), (False, 2)):
        reported.store.forget_outcomes({}, [], None, person.all_positions(), dry_run=dry_run)
        assert reported.waiting() == left
