"""Recipe -> version, straight down: rows, split, fit, convert, certify, evaluate, compare, gate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from features.canonical import canonical_json, sha256_hex
from features.contract import ModelContract
from features.offline import Spine, TrainingSet
from features.views import View
from registry import bundle
from registry.bundle import Bundle
from training.artifacts import card, golden_rows, reference
from training.errors import GateFailedError
from training.evaluation import fairness, gate
from training.evaluation.expected_shift import ExpectedShift, expected_shift
from training.evaluation.metrics import Estimate, auc_gain, evaluate_scores
from training.export.edge_rows import edge_rows
from training.export.lint import lint_recipe
from training.export.onnx_model import OnnxModel
from training.export.parity import ParityCertificate, certify_parity
from training.labels import Labels
from training.recipe import Recipe
from training.split import is_held_out

Progress = Callable[[str], None]
"""Called with the name of each step as it begins."""


class FeatureSource(Protocol):
    """Where rows come from: what `train` asks of features.offline.OfflineStore."""

    def training_set(self, contract: ModelContract, spine: Spine) -> TrainingSet:
        """Each row as it was known at its instant, in the contract's columns."""

    def digest(self, views: Sequence[View]) -> str:
        """SHA-256 (hex) of the snapshot that *views* are read from."""


@dataclass(frozen=True, eq=False)
class TrainedVersion:
    """A version that passed its gate: five files, and what they were made from.

    files     model.onnx, contract.json, golden.npz, reference.json, card.json.
    model     the fitted scikit-learn classifier.
    rows      (N, F) float32, every labelled row as the model sees it.
    held_out  (N,) bool.
    scores    (N,) float32 P(positive) of *rows*, by ONNX Runtime.
    """

    recipe: Recipe
    files: dict[str, bytes]
    model: Any
    rows: NDArray[np.float32]
    held_out: NDArray[np.bool_]
    scores: NDArray[np.float32]
    metrics: dict[str, Estimate]
    gain: Estimate | None
    parity: ParityCertificate
    shift: ExpectedShift | None

    def sealed(self, *, author: str, created_unix_ms: int) -> dict[str, bytes]:
        """Return the files with their manifest: what is registered."""
        return bundle.seal_files(
            self.files, model=self.recipe.model, author=author, created_unix_ms=created_unix_ms
        )

    def bundle(self, *, author: str, created_unix_ms: int) -> Bundle:
        """Return the sealed version, proved: the champion of the next `train`."""
        return bundle.verify_bundle(
            self.sealed(author=author, created_unix_ms=created_unix_ms), trusted_key=None
        )


@dataclass(frozen=True, eq=False)
class _Fitted:
    """What fitting gave: the model twice, its rows, and its scores."""

    rows: NDArray[np.float32]
    held_out: NDArray[np.bool_]
    model: Any
    onnx: bytes
    edges: NDArray[np.float32]
    scores: NDArray[np.float32]
    parity: ParityCertificate


def train_version(
    recipe: Recipe,
    store: FeatureSource,
    labels: Labels,
    *,
    champion: Bundle | None = None,
    commit: str = "unknown",
    progress: Progress = lambda _step: None,
) -> TrainedVersion:
    """Make a version of the recipe's model, compared with *champion* on the same held-out rows.

    champion  the version in production, of any recipe; None for a model's first version.
    commit    of the code, for the card (`training.artifacts.card.commit_of`).

    The same recipe, data, champion and packages give the same bytes in every file. Raises
    RecipeError before anything is read, ConversionError, or GateFailedError with the numbers.
    """
    lint_recipe(recipe)
    progress("rows")
    rows = _rows(store, recipe.contract, labels)
    held = is_held_out(recipe.model, labels.joined_ids(), recipe.held_out_share)
    progress("fit and convert")
    fitted = _fit(recipe, rows, held, labels.positive)
    progress("evaluate")
    judged = labels.selected(held)
    scores = fitted.scores[held].astype(np.float64)
    metrics = evaluate_scores(judged.positive, scores, threshold=recipe.threshold, seed=recipe.seed)
    progress("compare with the champion")
    gain, shift = _compare(recipe, store, judged, fitted.scores[held], champion)
    facts = {
        **card.recipe_facts(recipe),
        "commit": commit,
        "packages": card.package_versions(),
        "data": _data(recipe, store, labels, held),
        "metrics": {name: estimate.definition() for name, estimate in metrics.items()},
        "auc_gain": None if gain is None else gain.definition(),
        "fairness": _fairness(recipe, store, judged, scores),
        "parity": {**fitted.parity.definition(), "onnx_sha256": sha256_hex(fitted.onnx)},
        "expected_shift": card.NO_CHAMPION if shift is None else shift.definition(),
    }
    files = _files(recipe, fitted)
    progress("gate")
    checks = gate.quality_checks(
        recipe.gate, held_out_rows=len(judged), auc=metrics["auc"], gain=gain, parity=fitted.parity
    )
    checks.append(gate.servable_check({**files, "card.json": b"{}"}, model=recipe.model))
    gate.enforce_gate(f"{recipe.model}/{recipe.setting}", checks)
    facts["gate"] = [check.definition() for check in checks]
    return TrainedVersion(
        recipe=recipe,
        files={**files, "card.json": canonical_json(facts)},
        model=fitted.model,
        rows=rows,
        held_out=held,
        scores=fitted.scores,
        metrics=metrics,
        gain=gain,
        parity=fitted.parity,
        shift=shift,
    )


def _rows(store: FeatureSource, contract: ModelContract, labels: Labels) -> NDArray[np.float32]:
    return store.training_set(contract, labels.spine).values


def _fit(
    recipe: Recipe,
    rows: NDArray[np.float32],
    held_out: NDArray[np.bool_],
    positive: NDArray[np.bool_],
) -> _Fitted:
    # scikit-learn and skl2onnx take a second to import: commands that fit nothing go without.
    from training.export.convert import convert_to_onnx
    from training.fit import fit_recipe, probabilities

    model = fit_recipe(recipe, rows[~held_out], positive[~held_out])
    onnx = convert_to_onnx(
        model,
        name=recipe.model,
        width=recipe.contract.width,
        model_contract=recipe.contract.model_contract,
    )
    runnable = OnnxModel(onnx)
    edges = edge_rows(recipe.contract, rows[held_out], onnx)
    certified = np.concatenate([rows[held_out], edges])
    parity = certify_parity(
        probabilities(model, certified),
        runnable.scores(certified)[:, 0],
        held_out_rows=int(held_out.sum()),
        threshold=recipe.threshold,
        difference_allowed=recipe.gate.difference_max,
    )
    return _Fitted(rows, held_out, model, onnx, edges, runnable.scores(rows)[:, 0], parity)


def _files(recipe: Recipe, fitted: _Fitted) -> dict[str, bytes]:
    """The four files that do not tell the story; card.json does."""
    inputs = golden_rows.choose_golden_rows(fitted.rows[fitted.held_out], fitted.edges)
    return {
        "model.onnx": fitted.onnx,
        "contract.json": canonical_json(recipe.contract.definition()),
        "golden.npz": golden_rows.write_golden(inputs, OnnxModel(fitted.onnx).scores(inputs)),
        "reference.json": reference.write_reference(
            names=recipe.contract.names,
            rows=fitted.rows[~fitted.held_out],
            scores=fitted.scores[fitted.held_out],
            score_name=recipe.contract.outputs[0],
            threshold=recipe.threshold,
        ),
    }


def _compare(
    recipe: Recipe,
    store: FeatureSource,
    held_out_labels: Labels,
    scores: NDArray[np.float32],
    champion: Bundle | None,
) -> tuple[Estimate | None, ExpectedShift | None]:
    """Score the champion's own file on the same rows, by the features it reads."""
    if champion is None:
        return None, None
    session = bundle.load_session(champion)
    before = session.run(_rows(store, champion.contract, held_out_labels))[:, 0]
    unusable = int((~np.isfinite(before)).sum())
    if unusable:
        text = (
            f"the champion {champion.digest[:16]} scores {unusable} of {len(before)} held-out rows "
            "NaN or infinite; nothing can be compared with it"
        )
        raise GateFailedError(text, (text,))
    gain = auc_gain(
        held_out_labels.positive,
        before.astype(np.float64),
        scores.astype(np.float64),
        seed=recipe.seed,
    )
    shift = expected_shift(
        before,
        scores,
        champion=champion.digest,
        edges=champion.reference.score_edges,
        champion_threshold=champion.reference.decision_threshold,
        candidate_threshold=recipe.threshold,
    )
    return gain, shift


def _data(
    recipe: Recipe, store: FeatureSource, labels: Labels, held_out: NDArray[np.bool_]
) -> dict[str, Any]:
    return {
        "snapshot": store.digest([use.view for use in recipe.contract.views]),
        "rows": len(labels),
        "positives": int(labels.positive.sum()),
        "held_out_rows": int(held_out.sum()),
        "held_out_share": recipe.held_out_share,
        "split": "xxh3_64 of the joined entity ids, salted by the model's name",
        "as_of_ms": [int(labels.as_of_ms.min()), int(labels.as_of_ms.max())],
    }


def _fairness(
    recipe: Recipe, store: FeatureSource, held_out_labels: Labels, scores: NDArray[np.float64]
) -> dict[str, Any]:
    """Join the audit's features here and nowhere else: the model need not read them."""
    if not recipe.audit:
        return {}
    audit = ModelContract(entities=recipe.contract.entities, views=recipe.audit)
    columns = _rows(store, audit, held_out_labels)
    return {
        name: fairness.compare_groups(
            columns[:, place] == 1.0,
            held_out_labels.positive,
            scores,
            threshold=recipe.threshold,
            seed=recipe.seed,
        )
        for place, name in enumerate(audit.names)
    }
