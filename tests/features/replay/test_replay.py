"""Planted skews are found and named; equal and late rows are no skew."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from features.contract import ModelContract, RequestInput, ViewUse
from features.offline import OfflineStore, Spine
from features.pushed import PushedRow
from features.replay.causes import Differences, probable_cause
from features.replay.compare import ReplayReport, compare_served
from features.replay.served_rows import ServedRows, served_rows
from features.views import Feature, View
from protos.journal_pb2 import ServedBatch
from protos.predict_pb2 import DEGRADED

pytestmark = pytest.mark.walk

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
FIRST_DAY_MS = 1_800_000_000_000
CUSTOMERS, DAYS = 60, 5
VIEW = View(
    name="usage",
    entities=("subscriber",),
    features=(
        Feature(name="plan", dtype="category", dictionary=("prepaid", "postpaid", "fibre")),
        Feature(name="minutes", default=-1.0),
        Feature(name="last_hour", default=None),
        Feature(name="ratio", default=0.0),
        Feature(name="balance", default=0.0),
    ),
    ttl_ms=30 * DAY_MS,
    transform="SELECT * FROM source",
)
CONTRACT = ModelContract(
    entities=("subscriber",),
    views=(ViewUse(view=VIEW, features=("plan", "minutes", "last_hour", "ratio", "balance")),),
    inputs=(RequestInput(name="offer_price"),),
)
PLAN, MINUTES, HOUR, RATIO, BALANCE = range(5)


def row_of(customer: int, day: int) -> PushedRow:
    """What was true of a customer at noon of a day."""
    random = np.random.default_rng([customer, day])
    return PushedRow(
        (f"S{customer:03d}",),
        FIRST_DAY_MS + day * DAY_MS,
        {
            "plan": ("prepaid", "postpaid", "fibre")[int(random.integers(3))],
            "minutes": None if customer % 4 == 0 else float(random.gamma(2.0, 50.0)),
            "last_hour": float(random.integers(24)),
            "ratio": float(random.uniform(0.1, 1.0)),
            "balance": float(random.integers(1_000)),
        },
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> OfflineStore:
    """Five days of 60 customers, each known an hour after it was true."""
    offline = OfflineStore(tmp_path_factory.mktemp("offline"))
    for day in range(DAYS):
        rows = [row_of(customer, day) for customer in range(CUSTOMERS)]
        created_ms = FIRST_DAY_MS + day * DAY_MS + HOUR_MS
        offline.append_pushed(VIEW, rows, created_ms=created_ms)
    return offline


def honest_rows(store: OfflineStore) -> ServedRows:
    """A call for every customer on every day, three hours after the row was true."""
    customers = [f"S{customer:03d}" for _ in range(DAYS) for customer in range(CUSTOMERS)]
    days = np.repeat(np.arange(DAYS), CUSTOMERS)
    spine = Spine(
        ids={"subscriber": customers}, as_of_ms=FIRST_DAY_MS + days * DAY_MS + 3 * HOUR_MS
    )
    stored = store.training_set(CONTRACT, spine)
    price = np.full((len(customers), 1), 9.9, dtype=np.float32)
    return ServedRows(spine, np.concatenate([stored.values, price], axis=1), stored.flags)


def replay_with(
    store: OfflineStore, change: Callable[[NDArray[np.float32]], object]
) -> ReplayReport:
    """Replay the honest rows after *change* has altered their vectors in place."""
    rows = honest_rows(store)
    change(rows.vectors)
    return compare_served(store, CONTRACT, [rows])


def only_skew(report: ReplayReport, name: str) -> str:
    """Return the cause of the one feature that differs."""
    assert [result.name for result in report.skewed] == [f"usage:{name}"]
    return report.skewed[0].cause


def test_honest_rows_have_no_difference(store: OfflineStore) -> None:
    """Every stored feature is compared, and request inputs are not."""
    report = compare_served(store, CONTRACT, [honest_rows(store)])
    assert (report.rows, report.degraded, report.skewed) == (CUSTOMERS * DAYS, 0, [])
    assert [result.name for result in report.features] == list(CONTRACT.names[:-1])
    assert sum(result.late for result in report.features) == 0


def test_another_default_is_named(store: OfflineStore) -> None:
    """0 was served where the view has -1: the online writer replaces missing values itself."""

    def change(vectors: NDArray[np.float32]) -> None:
        vectors[vectors[:, MINUTES] == -1.0, MINUTES] = 0.0

    report = replay_with(store, change)
    assert only_skew(report, "minutes") == ("another default: 0 was served where the view has -1")
    assert report.skewed[0].extra == CUSTOMERS * DAYS / 4
    assert (report.skewed[0].missing, report.skewed[0].different) == (0, 0)


def test_another_dictionary_is_named(store: OfflineStore) -> None:
    """The words have other positions."""

    def change(vectors: NDArray[np.float32]) -> None:
        vectors[:, PLAN] = np.array([2.0, 0.0, 1.0], dtype=np.float32)[vectors[:, PLAN].astype(int)]

    cause = only_skew(replay_with(store, change), "plan")
    assert cause == "another dictionary: 'prepaid' as 2, 'postpaid' as 0, 'fibre' as 1"


def test_float64_is_named(store: OfflineStore) -> None:
    """The ratio was computed in another precision and rounded after it."""

    def change(vectors: NDArray[np.float32]) -> None:
        vectors[:, RATIO] = np.nextafter(vectors[:, RATIO], np.float32(2.0))

    assert only_skew(replay_with(store, change), "ratio").startswith("rounding: ")


@pytest.mark.parametrize(("hours", "shown"), [(2.0, "+2 h"), (-5.0, "-5 h"), (5.5, "+5.5 h")])
def test_time_zone_is_named(store: OfflineStore, hours: float, shown: str) -> None:
    """The hour of the day was read in another zone, and wraps around at midnight."""

    def change(vectors: NDArray[np.float32]) -> None:
        vectors[:, HOUR] = (vectors[:, HOUR] + np.float32(hours)) % 24

    cause = only_skew(replay_with(store, change), "last_hour")
    assert cause == f"time zone: served values are {shown} off, counted in hours"


def test_window_that_is_one_step_off_is_named(store: OfflineStore) -> None:
    """Minutes have the value of the row before, and the other features do not."""

    def change(vectors: NDArray[np.float32]) -> None:
        vectors[CUSTOMERS:, MINUTES] = vectors[:-CUSTOMERS, MINUTES].copy()

    cause = only_skew(replay_with(store, change), "minutes")
    assert cause == "window: served values are those of the row before, off by one step"


def test_window_that_is_longer_is_named(store: OfflineStore) -> None:
    """A sum over 31 days instead of 30 is larger by something else each time."""

    def change(vectors: NDArray[np.float32]) -> None:
        known = vectors[:, MINUTES] >= 0
        vectors[known, MINUTES] *= np.linspace(1.01, 1.4, int(known.sum()), dtype=np.float32)

    cause = only_skew(replay_with(store, change), "minutes")
    assert cause == "window: served values are larger; it may be longer than offline"


def test_another_unit_is_named(store: OfflineStore) -> None:
    """Gigabytes of 1,000 megabytes online, and of 1,024 offline."""

    def change(vectors: NDArray[np.float32]) -> None:
        known = vectors[:, MINUTES] >= 0
        vectors[known, MINUTES] *= np.float32(1.024)

    cause = only_skew(replay_with(store, change), "minutes")
    assert cause == "another unit: served values are 1.024 times those offline"


def test_late_rows_are_no_skew_and_have_their_lag(store: OfflineStore) -> None:
    """On the last three days the online store had the rows of the day before: 2 h of lag."""

    def change(vectors: NDArray[np.float32]) -> None:
        late = slice(2 * CUSTOMERS, None)
        vectors[late, : BALANCE + 1] = vectors[CUSTOMERS:-CUSTOMERS, : BALANCE + 1].copy()

    report = replay_with(store, change)
    assert report.skewed == []
    assert report.lag_ms("usage") == (3 * CUSTOMERS, 2 * HOUR_MS, 2 * HOUR_MS)
    assert report.features[BALANCE].late > 2 * CUSTOMERS


def test_customer_without_a_row_online_is_late_since_the_first(store: OfflineStore) -> None:
    """On the first day nothing was written online: everything has its default."""

    def change(vectors: NDArray[np.float32]) -> None:
        defaults = [feature.default_value for feature in VIEW.features]
        vectors[:CUSTOMERS, : BALANCE + 1] = np.array(defaults, dtype=np.float32)

    report = replay_with(store, change)
    assert report.skewed == []
    assert report.lag_ms("usage") == (CUSTOMERS, 2 * HOUR_MS, 2 * HOUR_MS)


def test_missing_values_are_counted_apart(store: OfflineStore) -> None:
    """A default was served for a value that offline has, in one feature."""

    def change(vectors: NDArray[np.float32]) -> None:
        vectors[:, BALANCE] = 0.0

    report = replay_with(store, change)
    (result,) = report.skewed
    assert (result.name, result.different, result.extra) == ("usage:balance", 0, 0)
    assert result.missing >= CUSTOMERS * DAYS - 5


def test_rows_without_an_answer_of_the_store_are_left_out(store: OfflineStore) -> None:
    """DEGRADED says that the features were never read."""
    rows = honest_rows(store)
    rows.vectors[:7] = -9.0
    rows.flags[:7] |= DEGRADED
    report = compare_served(store, CONTRACT, [rows])
    assert (report.rows, report.degraded, report.skewed) == (CUSTOMERS * DAYS - 7, 7, [])


def test_few_and_unexplained_differences_get_no_cause(store: OfflineStore) -> None:
    """A cause is named from 20 differences on, if it explains nine of ten."""

    def change(vectors: NDArray[np.float32]) -> None:
        vectors[:5, BALANCE] = [5.5, 6.5, 7.5, 8.5, 9.5]

    assert "too few" in only_skew(replay_with(store, change), "balance")
    random = np.random.default_rng(1)
    noise = random.normal(0, 9, (4, 100)).astype(np.float32)
    assert probable_cause(VIEW.features[BALANCE], Differences(*noise)) == "no known cause"


def test_served_rows_are_read_from_journal_records(store: OfflineStore) -> None:
    """Records of other contracts, and calls before the given instant, are left out."""
    rows = honest_rows(store)
    count = len(rows)
    batch = ServedBatch(
        model_contract=CONTRACT.model_contract,
        at_unix_ns=(rows.spine.as_of_ms[::2] * 1_000_000).astype("<i8").tobytes(),
        row_count=np.full(count // 2, 2, dtype="<u4").tobytes(),
        row_flags=rows.flags.astype("<u4").tobytes(),
        width=CONTRACT.width,
        vectors=rows.vectors.astype("<f4").tobytes(),
        entity_ids=list(rows.spine.ids["subscriber"]),
    )
    other = ServedBatch(model_contract="0" * 64, entity_ids=["x"])
    since_ms = FIRST_DAY_MS + DAY_MS
    chunks = list(
        served_rows(
            [other, batch, batch], CONTRACT, since_ms=since_ms, rows_max=10_000, chunk_rows=100
        )
    )
    assert [len(chunk) for chunk in chunks] == [CUSTOMERS * (DAYS - 1)] * 2
    assert compare_served(store, CONTRACT, chunks).skewed == []
    few = served_rows([batch] * 9, CONTRACT, rows_max=1, chunk_rows=10_000)
    assert [len(chunk) for chunk in few] == [count]


def test_history_has_the_rows_of_the_asked_entities_alone(store: OfflineStore) -> None:
    """Oldest first, and nothing for an entity without rows."""
    history = store.history(VIEW, ["S001", "S007", "nobody"])
    assert history.ids.tolist() == ["S001"] * DAYS + ["S007"] * DAYS
    assert (np.diff(history.known_ms[DAYS:]) == DAY_MS).all()
    assert store.history(replace(VIEW, name="unknown"), ["S001"]).values.shape == (0, 5)
