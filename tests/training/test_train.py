"""Tests of train_version on real churn data: complete, reproducible, refused if not better."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.canonical import canonical_json, sha256_hex
from features.contract import ModelContract
from features.offline import OfflineStore
from registry import bundle, scoring
from registry.types import ScoringError
from stats.accuracy.area import curve_area
from stats.accuracy.labelled_bins import LabelledBins
from stats.score_grid import score_grid_values
from tests.telco import NOW_MS, copied_project, recipe_of
from tests.training.conftest import ChurnVersions
from tests.training.population import (
    PopulationStore,
    profile_contract,
    profile_labels,
    profile_matrix,
    profile_recipe,
)
from training.drills import bad_versions
from training.errors import GateFailedError, RecipeError
from training.labelled_rows import LabelledRows
from training.learner import Learner
from training.recipe import GateSettings

pytestmark = pytest.mark.walk

TENURE = "churn_profile:tenure"


def read_card(files: dict[str, bytes]) -> dict[str, Any]:
    """The parsed card.json."""
    parsed: dict[str, Any] = json.loads(files["card.json"])
    return parsed


def test_train_makes_a_candidate_better_than_the_champion(
    churn_versions: ChurnVersions,
) -> None:
    """The paired interval of the AUC gain is above .01; it is about [.024, .048]."""
    gain = churn_versions.candidate.gain
    assert gain is not None
    assert gain.low is not None
    assert gain.low > 0.01
    assert np.array_equal(churn_versions.candidate.held_out, churn_versions.champion.held_out)


def test_train_makes_a_version_that_gateways_can_load(
    churn_versions: ChurnVersions,
) -> None:
    """It has its files, passes its golden test, and its scores can be explained."""
    candidate = churn_versions.candidate
    verified = candidate.bundle(author="dana", created_unix_ms=NOW_MS)
    assert set(candidate.files) == {
        "model.onnx",
        "contract.json",
        "golden.npz",
        "background.npz",
        "reference.json",
        "card.json",
    }
    explanation = verified.card["explanation"]
    assert (explanation["possible"], explanation["background_rows"]) == (True, 200)
    assert scoring.golden_test(verified, scoring.load_session(verified)) <= 1e-6
    assert verified.golden_inputs.shape == (256, 19)
    assert verified.golden_outputs.shape == (256, 1)
    assert len(verified.reference.score_edges) == 19
    assert ModelContract.from_definition(json.loads(candidate.files["contract.json"])).outputs == (
        "churned",
    )


def test_reference_has_the_labels_of_the_held_out_rows(churn_versions: ChurnVersions) -> None:
    """By bin of the score grid, of which the area is that of the card up to the width of a bin."""
    candidate = churn_versions.candidate
    sealed = json.loads(candidate.files["reference.json"])["held_out_labels"]
    counts = [np.array(sealed[name], dtype=np.float64) for name in ("positives", "negatives")]
    assert sum(count.sum() for count in counts) == candidate.held_out.sum()
    bins = LabelledBins(score_grid_values()[sealed["bins"]], *counts)
    assert curve_area(bins).value == pytest.approx(candidate.metrics["auc"].value, abs=0.002)


def test_train_gives_the_same_files_again(
    churn_versions: ChurnVersions, churn_folder: Path, churn_labels: LabelledRows
) -> None:
    """All five files are equal, with the card."""
    from training.train import train_version

    again = train_version(
        recipe_of("churn"),
        OfflineStore(churn_folder),
        churn_labels,
        champion=churn_versions.champion.bundle(author="dana", created_unix_ms=NOW_MS),
    )
    assert again.files == churn_versions.candidate.files


def test_train_writes_every_fact_into_the_card(churn_versions: ChurnVersions) -> None:
    """Approvers, auditors and people who reproduce the version need these facts."""
    card = read_card(churn_versions.candidate.files)
    assert card["data"]["rows"] == 7_043
    assert len(card["data"]["snapshot"]) == 64
    joined = card["joined"]["churn_profile"]
    assert (joined["missing"], joined["stale"]) == (0.0, 0.0)
    assert 0 < joined["defaulted"] < 0.01, "eleven customers have no total charges"
    assert card["learner"]["hyperparameters"]["max_iter"] == 100
    assert card["seed"] == 7
    assert {"scikit-learn", "skl2onnx", "onnxruntime", "numpy", "python"} <= set(card["packages"])
    assert card["metrics"]["auc"]["low"] < card["metrics"]["auc"]["value"]
    assert card["parity"]["passed"]
    assert card["parity"]["held_out_rows"] == card["data"]["held_out_rows"]
    assert all(check["passed"] for check in card["gate"])
    fairness = card["fairness"]
    assert set(fairness) == {"churn_profile:senior_citizen", "churn_profile:female"}
    assert fairness["churn_profile:female"]["verdict"] in ("within band", "undecided")
    younger, senior = fairness["churn_profile:senior_citizen"]["groups"][:2]
    assert (younger["value"], senior["value"]) == ("0", "1")
    assert senior["selection_rate_ratio"]["value"] > 1.25
    assert set(card["importances"]) == set(card["names"])
    assert min(card["importances"].values()) >= 0.0 < max(card["importances"].values())
    assert card["intervals"] == {
        "confidence_level": 0.95,
        "resamples": 1_000,
        "rows": card["data"]["held_out_rows"],
        "groups": card["data"]["held_out_rows"],
    }


def test_train_writes_the_expected_shift_of_all_held_out_rows(
    churn_versions: ChurnVersions,
) -> None:
    """The table's rows sum to the champion's bin counts. A first version has no shift."""
    champion, candidate = churn_versions.champion, churn_versions.candidate
    shift = read_card(candidate.files)["expected_shift"]
    reference = json.loads(champion.files["reference.json"])
    table = np.array(shift["table"])
    assert table.sum(axis=1).tolist() == reference["score"]["counts"]
    assert shift["edges"] == reference["score"]["edges"]
    assert shift["rows"] == int(candidate.held_out.sum()) == int(table.sum())
    assert shift["champion"] == champion.bundle(author="dana", created_unix_ms=NOW_MS).digest
    assert 0 < shift["flip_rate"] < 0.2
    assert candidate.shift is not None
    assert shift["digest"] == candidate.shift.digest


def test_train_puts_sections_of_the_card_into_the_digest_that_is_approved(
    churn_versions: ChurnVersions,
) -> None:
    """With another verdict or another gate, the approver would accept another digest."""
    for version in (churn_versions.champion, churn_versions.candidate):
        card = read_card(version.files)
        shift = card["expected_shift"]
        assert set(shift["sections"]) == {"data", "fairness", "gate", "joined", "metrics"}
        for section, digest in shift["sections"].items():
            assert sha256_hex(canonical_json(card[section])) == digest
        digest = shift.pop("digest")
        assert sha256_hex(canonical_json(shift)) == digest
    assert read_card(churn_versions.champion.files)["expected_shift"]["champion"] is None


def test_train_refuses_a_version_worse_than_the_champion(
    churn_versions: ChurnVersions, churn_folder: Path, churn_labels: LabelledRows
) -> None:
    """With the roles exchanged, the error has the negative gain."""
    from training.train import train_version

    with pytest.raises(GateFailedError, match=r"AUC gain over the champion -0\.03"):
        train_version(
            recipe_of("churn", "champion"),
            OfflineStore(churn_folder),
            churn_labels,
            champion=churn_versions.candidate.bundle(author="dana", created_unix_ms=NOW_MS),
        )


def test_faulting_version_raises_for_five_per_cent_of_real_customers(
    churn_versions: ChurnVersions,
) -> None:
    """It raises for exactly the chosen tenures, and not for the default."""
    candidate = churn_versions.candidate
    drill = bad_versions.faulting_version(
        candidate.files, candidate.rows, column=TENURE, share=0.05
    )
    verified = bundle.verify_bundle(
        bundle.seal_files(drill.files, model="churn", author="dana", created_unix_ms=NOW_MS),
        trusted_key=None,
    )
    session = scoring.load_session(verified)
    scoring.golden_test(verified, session)
    column_index = verified.contract.names.index(TENURE)
    hit = np.isin(candidate.rows[:, column_index], drill.values)

    assert drill.share == hit.mean() == pytest.approx(0.05, abs=0.001)
    assert session.run(candidate.rows[~hit]).tobytes() == candidate.scores[~hit].tobytes()
    for row in candidate.rows[hit][:20]:
        with pytest.raises(ScoringError):
            session.run(row[np.newaxis])
    assert 29.0 not in drill.values


def test_train_compares_with_a_champion_of_other_features(churn_versions: ChurnVersions) -> None:
    """The champion reads four features, and the candidate reads nineteen."""
    champion, candidate = churn_versions.champion, churn_versions.candidate
    assert champion.recipe.contract.width == 4
    assert candidate.recipe.contract.width == 19
    assert champion.recipe.contract.input_contract == candidate.recipe.contract.input_contract


def test_train_refuses_a_bad_recipe_before_reading_rows() -> None:
    """The store is None, so reading from it would fail."""
    from training.train import train_version

    bad = profile_recipe(Learner(kind="boosting", calibration="isotonic"))
    with pytest.raises(RecipeError, match="isotonic"):
        train_version(bad, None, profile_labels())  # type: ignore[arg-type]


def test_train_refuses_a_champion_that_scores_nan() -> None:
    """The error has the number of rows."""
    from training.train import train_version

    learner = Learner(kind="logistic", scaling="standard")
    good = train_version(profile_recipe(learner), PopulationStore(), profile_labels())
    drill = bad_versions.nan_version(
        good.files, profile_matrix(), column="profile:tenure", share=0.3
    )
    champion = bundle.verify_bundle(
        bundle.seal_files(drill.files, model="churn", author="dana", created_unix_ms=1),
        trusted_key=None,
    )
    with pytest.raises(GateFailedError, match=r"scores \d+ of \d+ held-out rows NaN"):
        train_version(
            profile_recipe(learner), PopulationStore(), profile_labels(), champion=champion
        )


def test_train_refuses_too_few_held_out_rows() -> None:
    """There are 450 held-out rows, and 500 are needed."""
    from training.train import train_version

    with pytest.raises(GateFailedError, match="held-out rows; at least 500"):
        train_version(
            profile_recipe(
                Learner(kind="logistic", scaling="standard"),
                profile_contract("tenure", "plan"),
                gate=GateSettings(auc_min=0.6),
            ),
            PopulationStore(),
            profile_labels(),
        )


def test_train_command_writes_a_version_to_a_folder(
    churn_folder: Path, churn_project: Path, tmp_path: Path
) -> None:
    """The files are sealed, verify, and pass the golden test. No registry is asked."""
    project = copied_project(churn_project, tmp_path / "project")
    out = tmp_path / "version"
    line = ["turnout", "train", "churn", "--setting", "champion", "--champion", "none"]
    line += ["--no-register", f"--out={out}", f"--offline={churn_folder}", "--as", "dana"]
    finished = subprocess.run(
        [sys.executable, "-m", *line, "--project", str(project)], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    verified = bundle.verify_bundle(bundle.read_version_folder(out), trusted_key=None)
    assert (verified.model, verified.author) == ("churn", "dana")
    assert scoring.golden_test(verified, scoring.load_session(verified)) <= 1e-6
    assert sorted(path.name for path in out.iterdir()) == [
        "background.npz",
        "card.json",
        "contract.json",
        "golden.npz",
        "manifest.json",
        "model.onnx",
        "reference.json",
    ]
    assert re.search(r"^auc +0\.82", finished.stdout, re.MULTILINE)


def test_train_has_edge_rows_among_the_golden_rows(churn_versions: ChurnVersions) -> None:
    """The last 64 golden rows are edge rows, and an unknown category is among them."""
    with np.load(io.BytesIO(churn_versions.candidate.files["golden.npz"])) as archive:
        inputs = archive["inputs"]
    contract = churn_versions.candidate.recipe.contract
    column = contract.names.index("churn_profile:payment_method")
    assert 4.0 in inputs[192:, column]
