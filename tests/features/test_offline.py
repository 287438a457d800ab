"""Offline: what was known then, by a brute-force reading of the same rule."""

from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.contract import ModelContract, RequestInput, ViewUse
from features.errors import EntityIdError, SourceError
from features.offline import OfflineStore, Spine
from features.pushed import PushedRow
from features.rows import DEFAULTED, MISSING, STALE
from features.views import View
from tests.features.small_views import DAY_MS, NOW_MS, plan_view, wide_view
from tests.property_examples import examples

pytestmark = pytest.mark.walk

VIEW = plan_view()


def contract(view: View = VIEW, features: tuple[str, ...] = ("spend",)) -> ModelContract:
    """A model that reads some of one view."""
    return ModelContract(entities=view.entities, views=(ViewUse(view=view, features=features),))


def row(
    subscriber: str, event_ms: int, spend: float | None = 1.0, **others: float | str | None
) -> PushedRow:
    """A row of VIEW, whole unless told otherwise."""
    values = {"kind": "prepaid", "spend": spend, "balance": 0.0, **others}
    return PushedRow((subscriber,), event_ms, values)


def spine_of(*questions: tuple[str, int]) -> Spine:
    """Subscriber and instant of each question."""
    return Spine(
        ids={"subscriber": [subscriber for subscriber, _ in questions]},
        as_of_ms=np.array([instant for _, instant in questions], dtype=np.int64),
    )


def write_source(path: Path, select: str) -> Path:
    """A Parquet file of what *select* gives."""
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({select}) TO '{path}' (FORMAT parquet)")
    return path


WHOLE = "'S1' AS subscriber, 5::BIGINT AS event_time_ms, 'prepaid' AS kind, 2.5::DOUBLE AS spend"


def test_a_source_becomes_a_training_set(tmp_path: Path) -> None:
    """Transform, ids, encoding, file, join: one row all the way; a NULL takes its default."""
    source = write_source(tmp_path / "s.parquet", f"SELECT {WHOLE}, NULL::DOUBLE AS balance")
    store = OfflineStore(tmp_path / "offline")

    summary = store.ingest(VIEW, source, created_ms=6)

    assert summary.rows == 1
    assert summary.missing == {"balance": 1}
    found = store.training_set(contract(features=("spend", "kind")), spine_of(("S1", 6), ("S1", 5)))
    assert found.names == ("plan:spend", "plan:kind")
    assert found.values.tolist() == [[2.5, 0.0], [10.5, 3.0]]
    assert found.flags.tolist() == [DEFAULTED, MISSING | DEFAULTED]
    assert found.values.flags.c_contiguous


@pytest.mark.parametrize(
    ("select", "words"),
    [
        (WHOLE, r"balance is absent \(declared DOUBLE\)"),
        (f"{WHOLE}, 1::FLOAT AS balance", r"balance is FLOAT \(declared DOUBLE\)"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(tmp_path: Path, select: str, words: str) -> None:
    """The message names each column, its type and the declared one; nothing is kept."""
    source = write_source(tmp_path / "s.parquet", f"SELECT {select}")
    store = OfflineStore(tmp_path / "offline")
    with pytest.raises(SourceError, match=words):
        store.ingest(VIEW, source, created_ms=1)
    assert not list((tmp_path / "offline").rglob("*"))


@pytest.mark.parametrize(
    ("transform", "error", "words"),
    [
        ("SELECT * EXCLUDE subscriber FROM source", SourceError, "gives no 'subscriber'"),
        ("SELECT * EXCLUDE event_time_ms FROM source", SourceError, "'event_time_ms' is absent"),
        ("SELECT * REPLACE (-1 AS event_time_ms) FROM source", SourceError, "runs from -1"),
        ("SELECT * REPLACE (NULL AS subscriber) FROM source", SourceError, "never NULL"),
        ("SELECT * REPLACE ('' AS subscriber) FROM source", EntityIdError, "0 bytes"),
        ("SELECT * EXCLUDE spend FROM source", SourceError, r"declares \['spend'\]"),
        ("SELEC", SourceError, "syntax error"),
    ],
)
def test_a_transform_that_does_not_fit_is_refused(
    tmp_path: Path, transform: str, error: type[Exception], words: str
) -> None:
    """Its author reads what is wrong; nothing is kept."""
    source = write_source(tmp_path / "s.parquet", f"SELECT {WHOLE}, 0::DOUBLE AS balance")
    store = OfflineStore(tmp_path / "offline")
    with pytest.raises(error, match=words):
        store.ingest(plan_view(transform=transform), source, created_ms=1)
    assert not list((tmp_path / "offline").rglob("*.parquet"))


def test_a_late_correction_is_not_known_before_it_came(tmp_path: Path) -> None:
    """As of each instant, the newest event known by then, even when an older one came last."""
    store = OfflineStore(tmp_path)
    store.append_pushed(VIEW, [row("S1", 100, 1.0)], created_ms=100)
    store.append_pushed(VIEW, [row("S1", 200, 2.0)], created_ms=250)
    store.append_pushed(VIEW, [row("S1", 150, 3.0)], created_ms=300)
    store.append_pushed(VIEW, [row("S1", 200, 4.0)], created_ms=400)

    instants = [99, 100, 200, 249, 250, 300, 399, 400]
    found = store.training_set(contract(), spine_of(*[("S1", instant) for instant in instants]))

    assert found.values[:, 0].tolist() == [10.5, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 4.0]
    assert store.latest(VIEW).values[0, 1] == 4.0
    assert store.latest(VIEW, as_of_ms=399).values[0, 1] == 2.0


def test_age_decides_at_the_millisecond(tmp_path: Path) -> None:
    """Fresh at the TTL, stale after it, as if never written after two."""
    store = OfflineStore(tmp_path)
    store.append_pushed(VIEW, [row("S1", NOW_MS, 2.0)], created_ms=NOW_MS)
    ages = [DAY_MS, DAY_MS + 1, 2 * DAY_MS, 2 * DAY_MS + 1]
    found = store.training_set(contract(), spine_of(*[("S1", NOW_MS + age) for age in ages]))
    assert found.values[:, 0].tolist() == [2.0, 10.5, 10.5, 10.5]
    stale, missing = STALE | DEFAULTED, MISSING | DEFAULTED
    assert found.flags.tolist() == [0, stale, stale, missing]


def test_nothing_ingested_is_all_defaults(tmp_path: Path) -> None:
    """A new view is missing, not an error; the latest rows are none."""
    store = OfflineStore(tmp_path)
    found = store.training_set(contract(), spine_of(("S1", 1)))
    assert found.values.tolist() == [[10.5]]
    assert found.flags.tolist() == [MISSING | DEFAULTED]
    assert len(store.latest(VIEW)) == 0


def test_views_and_composites_stand_in_contract_order(tmp_path: Path) -> None:
    """Each view by its own entities; flags of a row are those of any of its views."""
    offers = wide_view(70)
    store = OfflineStore(tmp_path)
    store.append_pushed(VIEW, [row("S1", 10, 2.0)], created_ms=10)
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
    found = store.training_set(both, spine)
    assert found.names == ("wide:n69", "wide:n66", "plan:spend")
    assert found.values.tolist() == [[69.5, 66.0, 2.0], [69.0, 66.0, 2.0]]
    assert found.flags.tolist() == [DEFAULTED, MISSING | DEFAULTED]


def test_a_spine_must_name_the_views_entities(tmp_path: Path) -> None:
    """The wrong entity, the wrong count, an id that cannot be."""
    store = OfflineStore(tmp_path)
    one = np.array([1])
    with pytest.raises(SourceError, match=r"keyed by \['subscriber'\]"):
        store.training_set(contract(), Spine(ids={"customer": ["S1"]}, as_of_ms=one))
    with pytest.raises(SourceError, match="1 instants"):
        store.training_set(contract(), Spine(ids={"subscriber": ["S1", "S2"]}, as_of_ms=one))
    with pytest.raises(EntityIdError, match="0 bytes"):
        store.training_set(contract(), spine_of(("", 1)))


def test_the_digest_names_the_data(tmp_path: Path) -> None:
    """The same rows have the same digest anywhere; one more row has another."""
    stores = [OfflineStore(tmp_path / name) for name in ("a", "b")]
    for store in stores:
        store.append_pushed(VIEW, [row("S1", 10), row("S2", 10)], created_ms=10)
    first, second = (store.digest([VIEW]) for store in stores)
    assert first == second
    stores[1].append_pushed(VIEW, [row("S1", 11)], created_ms=11)
    assert stores[1].digest([VIEW]) != first


def test_ingests_at_once_keep_all_and_leave_no_parts(tmp_path: Path) -> None:
    """The number of a file is taken by a link that cannot replace another's."""
    store = OfflineStore(tmp_path)
    first = store.append_pushed(VIEW, [row("S1", 10)], created_ms=10)
    ahead = first.path.with_name("000003.parquet")
    ahead.write_bytes(first.path.read_bytes())
    paths = [store.append_pushed(VIEW, [row("S1", 10)], created_ms=10).path.name for _ in range(2)]
    assert paths == ["000004.parquet", "000005.parquet"]
    assert not list(tmp_path.rglob("*.part"))


TIMES = st.integers(0, 12)
STORED = st.lists(st.tuples(st.sampled_from(["S1", "S2"]), TIMES, TIMES), max_size=8)


@examples(75)
@given(ingests=st.lists(STORED, max_size=3), ttl=st.integers(1, 8))
def test_the_join_is_the_rule_read_row_by_row(
    tmp_path_factory: pytest.TempPathFactory,
    ingests: list[list[tuple[str, int, int]]],
    ttl: int,
) -> None:
    """Against brute force: newest event, then created last, then ingested last."""
    view = plan_view(ttl_ms=ttl)
    store = OfflineStore(tmp_path_factory.mktemp("offline"))
    order: list[tuple[str, int, int, int]] = []
    for rows in ingests:
        for created in sorted({created for _, _, created in rows}):
            together = [(who, event) for who, event, known in rows if known == created]
            numbers = range(len(order), len(order) + len(together))
            order += [(*pair, created, n) for pair, n in zip(together, numbers, strict=True)]
            pushed = [row(*pair, float(n)) for pair, n in zip(together, numbers, strict=True)]
            store.append_pushed(view, pushed, created_ms=created)
    questions = [(subscriber, instant) for subscriber in ("S1", "S2") for instant in range(14)]
    found = store.training_set(contract(view), spine_of(*questions))
    for place, (subscriber, instant) in enumerate(questions):
        known = [
            (event, created, number)
            for who, event, created, number in order
            if who == subscriber and event <= instant and created <= instant
        ]
        expected, flags = 10.5, MISSING | DEFAULTED
        if known and instant - max(known)[0] <= ttl:
            expected, flags = float(max(known)[2]), 0
        elif known and instant - max(known)[0] <= 2 * ttl:
            flags = STALE | DEFAULTED
        assert (found.values[place, 0], found.flags[place]) == (expected, flags)


def test_no_questions_and_no_views_are_fine(tmp_path: Path) -> None:
    """A spine of nobody; a model that reads request inputs alone."""
    store = OfflineStore(tmp_path)
    store.append_pushed(VIEW, [row("S1", 10)], created_ms=10)
    nobody = Spine(ids={"subscriber": []}, as_of_ms=np.empty(0, dtype=np.int64))
    assert store.training_set(contract(), nobody).values.shape == (0, 1)
    plain = ModelContract(entities=("subscriber",), inputs=(RequestInput(name="budget"),))
    found = store.training_set(plain, spine_of(("S1", 20)))
    assert (found.values.shape, found.names, found.flags.tolist()) == ((1, 0), (), [0])
