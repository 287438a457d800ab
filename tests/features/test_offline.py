"""Tests of OfflineStore: ingest and point-in-time joins, also against a brute-force join."""

import shutil
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.contract import ModelContract, RequestInput, ViewUse
from features.errors import EntityIdError, SourceError, ViewError
from features.ingest.load import ingest
from features.offline import OfflineStore, Spine
from features.pushed import PushedRow
from features.rows import DEFAULTED, MISSING, STALE
from features.storage import ingests
from features.views import View
from tests.features.small_views import DAY_MS, NOW_MS, plan_view, wide_view
from tests.property_examples import examples

pytestmark = pytest.mark.walk

VIEW = plan_view()


def plan_contract(view: View = VIEW, features: tuple[str, ...] = ("spend",)) -> ModelContract:
    """A contract that reads some features of one view."""
    return ModelContract(entities=view.entities, views=(ViewUse(view=view, features=features),))


def plan_row(
    subscriber: str, event_ms: int, spend: float | None = 1.0, **others: float | str | None
) -> PushedRow:
    """A row of VIEW with every feature valid, except those given as None."""
    values = {"kind": "prepaid", "spend": spend, "balance": 0.0, **others}
    return PushedRow((subscriber,), event_ms, values)


def spine_of(*rows: tuple[str, int]) -> Spine:
    """A spine of pairs of subscriber and instant."""
    return Spine(
        ids={"subscriber": [subscriber for subscriber, _ in rows]},
        as_of_ms=np.array([instant for _, instant in rows], dtype=np.int64),
    )


def write_source(path: Path, select: str) -> Path:
    """Write the result of *select* to a Parquet file."""
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({select}) TO '{path}' (FORMAT parquet)")
    return path


VALID_ROW = (
    "'S1' AS subscriber, 5::BIGINT AS event_time_ms, 'prepaid' AS kind, 2.5::DOUBLE AS spend"
)


def test_offline_source_becomes_a_training_set(tmp_path: Path) -> None:
    """One row goes through transform, encoding, file and join. A NULL gives the default."""
    source = write_source(tmp_path / "s.parquet", f"SELECT {VALID_ROW}, NULL::DOUBLE AS balance")
    store = OfflineStore(tmp_path / "offline")

    summary = ingest(VIEW, store, source, created_ms=6)

    assert summary.rows == 1
    assert summary.missing == {"balance": 1}
    training = store.training_set(
        plan_contract(features=("spend", "kind")), spine_of(("S1", 6), ("S1", 5))
    )
    assert training.names == ("plan:spend", "plan:kind")
    assert training.values.tolist() == [[2.5, 0.0], [10.5, 3.0]]
    assert training.flags.tolist() == [DEFAULTED, MISSING | DEFAULTED]
    assert training.values.flags.c_contiguous


@pytest.mark.parametrize(
    ("select", "message"),
    [
        (VALID_ROW, r"balance is absent \(declared DOUBLE\)"),
        (f"{VALID_ROW}, '1' AS balance", r"balance is VARCHAR \(declared DOUBLE\)"),
    ],
)
def test_offline_refuses_a_source_with_other_columns(
    tmp_path: Path, select: str, message: str
) -> None:
    """The message names the column, its type and the declared type. No file is written."""
    source = write_source(tmp_path / "s.parquet", f"SELECT {select}")
    store = OfflineStore(tmp_path / "offline")
    with pytest.raises(SourceError, match=message):
        ingest(VIEW, store, source, created_ms=1)
    assert not list((tmp_path / "offline").rglob("*"))


@pytest.mark.parametrize(
    ("transform", "error", "message"),
    [
        ("SELECT * EXCLUDE subscriber FROM source", SourceError, "returns no 'subscriber'"),
        ("SELECT * EXCLUDE event_time_ms FROM source", SourceError, "'event_time_ms' is absent"),
        ("SELECT * REPLACE (-1 AS event_time_ms) FROM source", SourceError, "runs from -1"),
        ("SELECT * REPLACE (NULL AS subscriber) FROM source", SourceError, "never NULL"),
        ("SELECT * REPLACE ('' AS subscriber) FROM source", EntityIdError, "0 bytes"),
        ("SELECT * EXCLUDE spend FROM source", SourceError, r"declares \['spend'\]"),
        ("SELEC", ViewError, "syntax error"),
    ],
)
def test_offline_refuses_a_transform_with_wrong_results(
    tmp_path: Path, transform: str, error: type[Exception], message: str
) -> None:
    """The message says what is wrong with the transform. No file is written."""
    source = write_source(tmp_path / "s.parquet", f"SELECT {VALID_ROW}, 0::DOUBLE AS balance")
    store = OfflineStore(tmp_path / "offline")
    with pytest.raises(error, match=message):
        ingest(plan_view(transform=transform), store, source, created_ms=1)
    assert not list((tmp_path / "offline").rglob("*.parquet"))


def test_offline_training_set_ignores_corrections_not_yet_known(tmp_path: Path) -> None:
    """At each instant the newest event known by then counts, even if an older event came last."""
    store = OfflineStore(tmp_path)
    store.append_pushed(VIEW, [plan_row("S1", 100, 1.0)], created_ms=100)
    store.append_pushed(VIEW, [plan_row("S1", 200, 2.0)], created_ms=250)
    store.append_pushed(VIEW, [plan_row("S1", 150, 3.0)], created_ms=300)
    store.append_pushed(VIEW, [plan_row("S1", 200, 4.0)], created_ms=400)

    instants = [99, 100, 200, 249, 250, 300, 399, 400]
    training = store.training_set(
        plan_contract(), spine_of(*[("S1", instant) for instant in instants])
    )

    assert training.values[:, 0].tolist() == [10.5, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 4.0]
    assert store.latest(VIEW).values[0, 1] == 4.0
    assert store.latest(VIEW, as_of_ms=399).values[0, 1] == 2.0


def test_offline_row_becomes_stale_one_millisecond_after_its_ttl(tmp_path: Path) -> None:
    """After two TTLs it counts as never written."""
    store = OfflineStore(tmp_path)
    store.append_pushed(VIEW, [plan_row("S1", NOW_MS, 2.0)], created_ms=NOW_MS)
    ages = [DAY_MS, DAY_MS + 1, 2 * DAY_MS, 2 * DAY_MS + 1]
    training = store.training_set(
        plan_contract(), spine_of(*[("S1", NOW_MS + age) for age in ages])
    )
    assert training.values[:, 0].tolist() == [2.0, 10.5, 10.5, 10.5]
    stale, missing = STALE | DEFAULTED, MISSING | DEFAULTED
    assert training.flags.tolist() == [0, stale, stale, missing]


def test_offline_view_without_rows_gives_defaults(tmp_path: Path) -> None:
    """A view without ingests is no error."""
    store = OfflineStore(tmp_path)
    training = store.training_set(plan_contract(), spine_of(("S1", 1)))
    assert training.values.tolist() == [[10.5]]
    assert training.flags.tolist() == [MISSING | DEFAULTED]
    assert len(store.latest(VIEW)) == 0


def test_offline_training_set_has_columns_in_contract_order(tmp_path: Path) -> None:
    """Each view is joined by its own entities. A row has the flags of all its views."""
    offers = wide_view(70)
    store = OfflineStore(tmp_path)
    store.append_pushed(VIEW, [plan_row("S1", 10, 2.0)], created_ms=10)
    numbers = {f"n{i}": float(i) + 0.5 for i in range(70) if i != 66}
    store.append_pushed(offers, [PushedRow(("S1", "O1"), 10, numbers)], created_ms=10)
    both = ModelContract(
        entities=("offer", "subscriber"),
        views=(
            ViewUse(view=offers, features=("n69", "n66")),
            ViewUse(view=VIEW, features=("spend",)),
        ),
        inputs=(RequestInput(name="budget"),),
    )
    spine = Spine(
        ids={"subscriber": ["S1", "S1"], "offer": ["O1", "O2"]}, as_of_ms=np.array([20, 20])
    )
    training = store.training_set(both, spine)
    assert training.names == ("wide:n69", "wide:n66", "plan:spend")
    assert training.values.tolist() == [[69.5, 66.0, 2.0], [69.0, 66.0, 2.0]]
    assert training.flags.tolist() == [DEFAULTED, MISSING | DEFAULTED]


def test_offline_refuses_a_spine_that_does_not_fit(tmp_path: Path) -> None:
    """The entity is absent, the lengths differ, or an id is empty."""
    store = OfflineStore(tmp_path)
    instant = np.array([1])
    with pytest.raises(SourceError, match=r"keyed by \['subscriber'\]"):
        store.training_set(plan_contract(), Spine(ids={"customer": ["S1"]}, as_of_ms=instant))
    with pytest.raises(SourceError, match="1 instants"):
        store.training_set(
            plan_contract(), Spine(ids={"subscriber": ["S1", "S2"]}, as_of_ms=instant)
        )
    with pytest.raises(EntityIdError, match="0 bytes"):
        store.training_set(plan_contract(), spine_of(("", 1)))


def test_offline_digest_identifies_the_data(tmp_path: Path) -> None:
    """Equal rows give equal digests in two stores. One more row changes the digest."""
    stores = [OfflineStore(tmp_path / name) for name in ("a", "b")]
    for store in stores:
        store.append_pushed(VIEW, [plan_row("S1", 10), plan_row("S2", 10)], created_ms=10)
    first, second = (store.digest([VIEW]) for store in stores)
    assert first == second
    stores[1].append_pushed(VIEW, [plan_row("S1", 11)], created_ms=11)
    assert stores[1].digest([VIEW]) != first


def test_offline_ingests_take_the_next_free_number(tmp_path: Path) -> None:
    """A number that another process has taken is skipped, and no temporary file is left."""
    store = OfflineStore(tmp_path)
    first = store.append_pushed(VIEW, [plan_row("S1", 10)], created_ms=10)
    shutil.copytree(first.path, first.path.with_name("000003"))
    paths = [
        store.append_pushed(VIEW, [plan_row("S1", 10)], created_ms=10).path.name for _ in range(2)
    ]
    assert paths == ["000004", "000005"]
    assert not list(tmp_path.rglob("*.part"))


def test_offline_number_that_is_taken_meanwhile_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look for a free number and the rename another process may take the number."""
    store = OfflineStore(tmp_path)
    first = store.append_pushed(VIEW, [plan_row("S1", 10)], created_ms=10)
    shutil.copytree(first.path, first.path.with_name("000002"))
    listed = ingests._folders
    monkeypatch.setattr(ingests, "_folders", lambda folder: listed(folder)[:1])
    second = store.append_pushed(VIEW, [plan_row("S1", 11)], created_ms=11)
    assert (second.path.name, second.first) == ("000003", 3)


def test_offline_compaction_keeps_rows_order_and_digest(tmp_path: Path) -> None:
    """Ties are still won by the row ingested last, and a later ingest still comes after."""
    store = OfflineStore(tmp_path)
    for spend in range(40):
        rows = [plan_row("S1", 10, float(spend)), plan_row(f"S{spend}", 20, float(spend))]
        store.append_pushed(VIEW, rows, created_ms=30)
    spine = spine_of(("S1", 30), ("S39", 30), ("S40", 30))
    before, digest = store.training_set(plan_contract(), spine), store.digest([VIEW])

    assert store.compact(VIEW) == 40

    after = store.training_set(plan_contract(), spine)
    assert after.values.tolist() == before.values.tolist() == [[1.0], [39.0], [10.5]]
    assert store.digest([VIEW]) == digest
    # The former files leave with the next call, and a new row with equal times wins.
    assert store.append_pushed(VIEW, [plan_row("S39", 20, 7.0)], created_ms=30).last == 41
    assert store.compact(VIEW) == 2
    store.compact(VIEW)
    folders = sorted(path.name for path in store.folder(VIEW).iterdir())
    assert folders == ["000001-000041"]
    assert store.training_set(plan_contract(), spine).values.tolist() == [[1.0], [7.0], [10.5]]


def test_offline_digest_reads_manifests_only(tmp_path: Path) -> None:
    """A digest of terabytes must not read them."""
    store = OfflineStore(tmp_path)
    path = store.append_pushed(VIEW, [plan_row("S1", 10)], created_ms=10).path
    digest = store.digest([VIEW])
    (path / "0001.parquet").unlink()
    assert store.digest([VIEW]) == digest


def test_offline_join_does_not_read_files_of_other_times(tmp_path: Path) -> None:
    """Files whose rows are forgotten at every instant, or known later, are left out."""
    store = OfflineStore(tmp_path)
    old = store.append_pushed(VIEW, [plan_row("S1", NOW_MS - 3 * DAY_MS)], created_ms=1)
    late = store.append_pushed(VIEW, [plan_row("S1", NOW_MS - 5, 4.0)], created_ms=NOW_MS + 1)
    store.append_pushed(VIEW, [plan_row("S1", NOW_MS - 9, 2.0)], created_ms=NOW_MS)
    for ingest_of_other_times in (old, late):
        (ingest_of_other_times.path / "0001.parquet").unlink()
    training = store.training_set(plan_contract(), spine_of(("S1", NOW_MS)))
    assert training.values.tolist() == [[2.0]]


@pytest.mark.parametrize("name", ["000001.parquet", "000001/manifest.json"])
def test_offline_refuses_files_that_it_cannot_place(tmp_path: Path, name: str) -> None:
    """Files of an earlier version are not forgotten silently, and a broken manifest is named."""
    store = OfflineStore(tmp_path)
    path = store.folder(VIEW) / name
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(SourceError, match="ingest its source"):
        store.latest(VIEW)


TIMES = st.integers(0, 12)
STORED = st.lists(st.tuples(st.sampled_from(["S1", "S2"]), TIMES, TIMES), max_size=8)


@examples(75)
@given(ingests=st.lists(STORED, max_size=3), ttl=st.integers(1, 8))
def test_offline_join_equals_a_brute_force_join(
    tmp_path_factory: pytest.TempPathFactory,
    ingests: list[list[tuple[str, int, int]]],
    ttl: int,
) -> None:
    """If newest events are equal, the row created last counts, then the row ingested last."""
    # Store the rows, and note them in the order of ingestion.
    view = plan_view(ttl_ms=ttl)
    store = OfflineStore(tmp_path_factory.mktemp("offline"))
    order: list[tuple[str, int, int, int]] = []
    for rows in ingests:
        for created in sorted({created for _, _, created in rows}):
            known_together = [(entity, event) for entity, event, known in rows if known == created]
            numbers = range(len(order), len(order) + len(known_together))
            order += [(*pair, created, n) for pair, n in zip(known_together, numbers, strict=True)]
            pushed = [
                plan_row(*pair, float(n)) for pair, n in zip(known_together, numbers, strict=True)
            ]
            store.append_pushed(view, pushed, created_ms=created)
    # Compare the join with a search through all rows, for each entity and instant.
    spine_rows = [(subscriber, instant) for subscriber in ("S1", "S2") for instant in range(14)]
    training = store.training_set(plan_contract(view), spine_of(*spine_rows))
    for index, (subscriber, instant) in enumerate(spine_rows):
        known = [
            (event, created, number)
            for entity, event, created, number in order
            if entity == subscriber and event <= instant and created <= instant
        ]
        expected, flags = 10.5, MISSING | DEFAULTED
        if known and instant - max(known)[0] <= ttl:
            expected, flags = float(max(known)[2]), 0
        elif known and instant - max(known)[0] <= 2 * ttl:
            flags = STALE | DEFAULTED
        assert (training.values[index, 0], training.flags[index]) == (expected, flags)


def test_offline_training_set_may_be_empty(tmp_path: Path) -> None:
    """A spine may be empty, and a model may read request inputs alone."""
    store = OfflineStore(tmp_path)
    store.append_pushed(VIEW, [plan_row("S1", 10)], created_ms=10)
    empty = Spine(ids={"subscriber": []}, as_of_ms=np.empty(0, dtype=np.int64))
    assert store.training_set(plan_contract(), empty).values.shape == (0, 1)
    plain = ModelContract(entities=("subscriber",), inputs=(RequestInput(name="budget"),))
    training = store.training_set(plain, spine_of(("S1", 20)))
    assert (training.values.shape, training.names, training.flags.tolist()) == ((1, 0), (), [0])
