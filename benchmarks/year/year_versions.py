"""Versions of the four models, fitted on the world of a day, with the files that training seals."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from benchmarks.year.year_models import CATEGORIES, Floats, ValueKind, YearModel
from benchmarks.year.year_people import GROUPS, DayEffects, YearPeople
from monitoring.cells.version_bins import FeatureBins, OutputBins, VersionBins
from monitoring.looks.day_looks import SealedFacts
from stats.score_grid import score_grid_edges
from stats.score_scale import OutputReference, ScoreScale
from training.artifacts.reference import write_reference

TRAINING_ROWS = 20_000
THRESHOLD_PART = 0.15
"""The part of the training rows with a score above the threshold."""


@dataclass(frozen=True, slots=True)
class VersionBias:
    """What is wrong with a version: it scores one group of people higher or lower."""

    group: str
    log_odds: float


@dataclass(frozen=True, eq=False, slots=True)
class YearVersion:
    """One version: how it scores, and what its sealed files say."""

    model: YearModel
    label: str
    weights: NDArray[np.float32]
    """(F,) log odds by standard deviation of each input."""
    intercept: float
    bias: VersionBias | None
    facts: SealedFacts

    @property
    def digest8(self) -> int:
        """The first 8 bytes of the version's id, little-endian."""
        return self.facts.bins.digest8

    def scores(self, vectors: Floats, group: NDArray[np.int64]) -> Floats:
        """Return the (N,) scores of (N, F) served vectors of customers of (N,) groups."""
        return _scores(self.model, self.weights, self.intercept, self.bias, vectors, group)


def fit_version(
    people: YearPeople,
    label: str,
    day: int,
    effects: DayEffects,
    *,
    bias: VersionBias | None = None,
) -> YearVersion:
    """Return a version that is calibrated on the world of a Unix day with its lasting effects."""
    # What it learns, which is how the world is on that day.
    model = people.model
    rows = people.training_rows(day, effects, TRAINING_ROWS)
    weights = np.array(
        [effects.weights.get(feature.name, feature.weight) for feature in model.features],
        dtype=np.float32,
    )
    intercept = model.intercept + effects.log_odds
    scores = _scores(model, weights, intercept, bias, rows.vectors, rows.group)
    threshold = float(np.quantile(scores, 1 - THRESHOLD_PART))
    # The rows are held out as well, since the version was not fitted on their labels.
    labels = np.random.default_rng(day).random(len(scores)) < rows.probability
    reference = json.loads(
        write_reference(
            names=tuple(feature.name for feature in model.features),
            rows=rows.vectors,
            scores=scores[:, None],
            outputs=(model.outcome,),
            task="binary",
            threshold=threshold,
            positive=labels,
        )
    )
    # What its sealed files say.
    digest = hashlib.sha256(f"{model.name}/{label}".encode()).hexdigest()
    facts = SealedFacts(
        model=model.name,
        version=label,
        digest=digest,
        bins=_bins(model, label, digest, reference),
        reference=reference,
        scale=ScoreScale(
            [OutputReference(model.outcome, _edges(reference["score"]), 1.0, 0.0)],
            "binary",
            threshold,
        ),
        views={feature.name: feature.view for feature in model.features},
        card=_card(model, labels, scores),
        entities=("customer",),
    )
    return YearVersion(model, label, weights, intercept, bias, facts)


def _scores(
    model: YearModel,
    weights: Floats,
    intercept: float,
    bias: VersionBias | None,
    vectors: Floats,
    group: NDArray[np.int64],
) -> Floats:
    log_odds = np.full(len(vectors), intercept, dtype=np.float32)
    for number, feature in enumerate(model.features):
        log_odds += weights[number] * feature.meaning(vectors[:, number])
    if bias is not None:
        log_odds += np.float32(bias.log_odds) * (group == GROUPS.index(bias.group))
    return np.asarray(1 / (1 + np.exp(-log_odds)), dtype=np.float32)


def _bins(model: YearModel, label: str, digest: str, reference: dict[str, object]) -> VersionBins:
    described: list[dict[str, object]] = reference["features"]  # type: ignore[assignment]  # of JSON
    features = tuple(
        FeatureBins(
            feature.name,
            _edges(item),
            CATEGORIES if feature.kind is ValueKind.CATEGORY else 0,
        )
        for feature, item in zip(model.features, described, strict=True)
    )
    outputs = (OutputBins(model.outcome, score_grid_edges(), probability=True),)
    digest8 = int.from_bytes(bytes.fromhex(digest)[:8], "little")
    return VersionBins(model.name, label, digest8, outputs, features)


def _edges(described: dict[str, object]) -> NDArray[np.float32]:
    return np.array(described["edges"], dtype=np.float32)


def _card(model: YearModel, labels: NDArray[np.bool_], scores: Floats) -> dict[str, object]:
    """Return the card with the metrics of the held-out rows, as training writes them."""
    measured = {
        "auc": roc_auc_score(labels, scores),
        "brier": brier_score_loss(labels, scores),
        "log_loss": log_loss(labels, scores),
    }
    return {
        "label": model.outcome,
        "metrics": {name: {"value": float(value)} for name, value in measured.items()},
    }
