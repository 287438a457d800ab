"""Training says what it joined, and stops with the probable cause when it joined too little."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.offline import OfflineStore, Spine
from features.pushed import PushedRow
from tests.training.population import (
    ALL_COLUMNS,
    VIEW,
    profile_labels,
    profile_matrix,
    profile_recipe,
)
from training.errors import JoinError, RecipeError
from training.joined import joined_views, require_joined
from training.labelled_rows import LabelledRows
from training.learner import Learner
from training.recipe import GateSettings
from training.train import train_version

pytestmark = pytest.mark.walk

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000
RECIPE = profile_recipe(Learner(kind="logistic"))
IDS = [f"S{number:05d}" for number in range(40)]


def stored_rows(folder: Path, *, ids: list[str] = IDS, created_ms: int = NOW_MS) -> OfflineStore:
    """A store with a row of each id, with an event at NOW_MS and no charges."""
    store = OfflineStore(folder)
    values = {"tenure": 5.0, "charges": None, "plan": "two", "senior": 1.0}
    rows = [PushedRow((item,), NOW_MS, values) for item in ids]
    store.append_pushed(VIEW, rows, created_ms=created_ms)
    return store


def spine_of(ids: list[str], as_of_ms: int = NOW_MS) -> Spine:
    """A spine of *ids*, all at one instant."""
    return Spine(ids={"subscriber": ids}, as_of_ms=np.full(len(ids), as_of_ms, dtype=np.int64))


def refusal(store: OfflineStore, spine: Spine) -> str:
    """The text of the JoinError for *spine*."""
    rows = store.training_set(ALL_COLUMNS, spine)
    with pytest.raises(JoinError) as caught:
        require_joined("churn/test", store, ALL_COLUMNS, spine, rows, without_row_max=0.5)
    return str(caught.value)


def test_joined_views_count_what_each_label_found(tmp_path: Path) -> None:
    """Missing, stale and defaulted shares, of the same flags that a gateway gives."""
    store = stored_rows(tmp_path)
    stale, missing = NOW_MS + DAY_MS + 1, NOW_MS + 2 * DAY_MS + 1
    spine = Spine(
        ids={"subscriber": ["S00000", "S00001", "S00002", "nobody"]},
        as_of_ms=np.array([NOW_MS, stale, missing, NOW_MS], dtype=np.int64),
    )
    joined = joined_views(ALL_COLUMNS, store.training_set(ALL_COLUMNS, spine))
    assert [(view.view, view.definition()) for view in joined] == [
        ("profile", {"missing": 0.5, "stale": 0.25, "defaulted": 1.0})
    ]
    assert joined[0].without_row == 0.75


@pytest.mark.parametrize(
    ("written", "difference", "forms"),
    [
        (lambda item: f" {item}", "spaces around them", "labels: 1 space + "),
        (str.lower, "capital and small letters", "labels: 's' + 5 digits; view: 'S' + 5 digits"),
        (lambda item: f"{item}.0", "a decimal point", "'S' + 5 digits + '.' + 1 digit"),
        (lambda item: item[1:], "a prefix", "labels: 5 digits; view: 'S' + 5 digits"),
        (lambda item: str(int(item[1:])), "everything but the digits", "labels: 2 digits; view"),
    ],
)
def test_ids_in_another_format_are_named_by_form(
    tmp_path: Path, written: Callable[[str], str], difference: str, forms: str
) -> None:
    """The message has the difference and both forms, and no id of either side."""
    ids = [written(item) for item in IDS]
    text = refusal(stored_rows(tmp_path), spine_of(ids))
    assert "view 'profile' has no fresh row for 100.0% of the 40 labels" in text
    assert "ids in another format. 40 of these labels" in text
    assert f"differ from ids of the view by {difference}" in text
    assert forms in text
    assert "GateSettings(without_row_max=...)" in text
    assert not [item for item in (*IDS, *(item for item in ids if len(item) > 3)) if item in text]


def test_leading_zeros_are_the_simplest_difference(tmp_path: Path) -> None:
    """Numbers lose their zeros in a table with integers."""
    store = stored_rows(tmp_path, ids=[f"{number:07d}" for number in range(1, 41)])
    text = refusal(store, spine_of([str(number) for number in range(1, 41)]))
    assert "by leading zeros only (labels: 2 digits; view: 7 digits)" in text


def test_ids_that_no_difference_explains(tmp_path: Path) -> None:
    """Other forms may be another format; the same form means other entities."""
    store = stored_rows(tmp_path)
    text = refusal(store, spine_of(["abcd-efgh"] * 30))
    assert "ids in another format, or of other things. 30 of these labels" in text
    text = refusal(store, spine_of([f"S{number:05d}" for number in range(900, 930)]))
    assert "rows of other entities. 30 of these labels" in text
    assert "in the same form (labels: 'S' + 5 digits; view: 'S' + 5 digits)" in text


def test_rows_known_only_after_the_instant(tmp_path: Path) -> None:
    """Later events and a backfill have different ways out."""
    text = refusal(stored_rows(tmp_path / "later"), spine_of(IDS, NOW_MS - 3 * DAY_MS))
    assert "rows known only after the label's instant, for 40 of these labels" in text
    assert "by 3.00 days in the median. Take later instants" in text
    backfilled = stored_rows(tmp_path / "backfill", created_ms=NOW_MS + 10 * DAY_MS)
    text = refusal(backfilled, spine_of(IDS, NOW_MS + DAY_MS // 2))
    assert "by 9.50 days in the median. For 40 of them the event was earlier" in text
    assert "created=" in text


def test_rows_that_are_too_old_and_views_without_rows(tmp_path: Path) -> None:
    """Stale and forgotten rows count together."""
    text = refusal(stored_rows(tmp_path / "old"), spine_of(IDS, NOW_MS + 3 * DAY_MS))
    assert "rows too old for 40 of these labels, as the view's time to live is 1.00 days" in text
    text = refusal(OfflineStore(tmp_path / "empty"), spine_of(IDS))
    assert "nothing is stored for this edition of the view; run turnout features ingest" in text


def test_the_largest_cause_is_named(tmp_path: Path) -> None:
    """30 labels are too early, 10 have unknown ids."""
    ids = [*IDS[:30], *(item[1:] for item in IDS[30:])]
    text = refusal(stored_rows(tmp_path), spine_of(ids, NOW_MS - DAY_MS))
    assert "rows known only after the label's instant, for 30 of these labels" in text


def test_training_stops_before_it_fits(tmp_path: Path) -> None:
    """The bound is the recipe's, and a share that equals it is accepted."""
    positive = np.arange(40) % 2 == 0
    spine = spine_of(IDS[:19] + ["x"] * 21)
    labels = LabelledRows(ids=spine.ids, as_of_ms=spine.as_of_ms, positive=positive)
    store, steps = stored_rows(tmp_path), list[str]()
    with pytest.raises(JoinError, match=r"churn/test: view 'profile' has no fresh row for 52\.5%"):
        train_version(
            profile_recipe(Learner(kind="logistic")), store, labels, progress=steps.append
        )
    assert steps == ["rows"]
    rows = store.training_set(ALL_COLUMNS, spine)
    require_joined("churn/test", store, ALL_COLUMNS, spine, rows, without_row_max=0.525)


def test_training_stops_when_the_champion_reads_defaults(tmp_path: Path) -> None:
    """A champion whose edition of the view has no rows would lose every comparison."""
    # A champion on one edition of the view, with the whole population.
    population, labels, store = profile_matrix(), profile_labels(), OfflineStore(tmp_path)
    plans = VIEW.features[2].dictionary
    rows = [
        PushedRow(
            (item,),
            int(labels.as_of_ms[0]),
            {
                "tenure": float(row[0]),
                "charges": float(row[1]),
                "plan": plans[int(row[2])],
                "senior": float(row[3]),
            },
        )
        for item, row in zip(labels.ids["subscriber"], population, strict=True)
    ]
    store.append_pushed(VIEW, rows, created_ms=0)
    champion = train_version(RECIPE, store, labels)
    assert champion.joined[0].definition() == {"missing": 0.0, "stale": 0.0, "defaulted": 0.0}
    # The other edition is the only one with rows in a new store.
    edition = replace(VIEW, ttl_ms=2 * VIEW.ttl_ms)
    store = OfflineStore(tmp_path / "new")
    store.append_pushed(edition, rows, created_ms=0)
    uses = (replace(RECIPE.features[0], view=edition),)
    sealed = champion.bundle(author="dana", created_unix_ms=0)
    with pytest.raises(JoinError, match=f"churn/test, champion {sealed.digest[:16]}: view"):
        train_version(replace(RECIPE, features=uses, audit=()), store, labels, champion=sealed)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_gate_settings_refuse_what_is_no_share(share: float) -> None:
    """A share of 50 instead of 0.5 would switch the check off."""
    with pytest.raises(RecipeError, match="without_row_max is a share"):
        GateSettings(without_row_max=share)
