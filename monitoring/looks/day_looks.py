"""The looks at a day of a version, and what they know of it: its own files and its policy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from monitoring.cells.version_bins import VersionBins, bins_of_bundle
from monitoring.store.look_store import LookOutcome
from registry.bundle import Bundle, verify_bundle
from registry.watching.policy import MonitoringPolicy
from stats.score_scale import ScoreScale


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class SealedFacts:
    """What the sealed files of a version say. Nothing of it ever changes."""

    model: str
    version: str
    """Its label, for example "7"."""
    digest: str
    """The version's id, in hex."""
    bins: VersionBins
    """By which its scores and inputs are counted."""
    reference: Mapping[str, Any]
    """The content of reference.json: counts of the training rows by bin, task, threshold."""
    scale: ScoreScale
    """How scores are counted by their predicted output, as in reference.json."""
    views: Mapping[str, str]
    """Model input -> the view that it comes from; inputs of the request have none."""
    card: Mapping[str, Any]
    """The content of card.json, with the metrics of the held-out rows."""
    entities: tuple[str, ...] = ()
    """The model's entities; the first one is the customer, by which a holdout is drawn."""
    dictionaries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Model input that is a category -> the texts of its codes."""

    @property
    def task(self) -> str:
        """One of stats.score_scale.TASKS."""
        return str(self.reference.get("task", "binary"))

    @property
    def threshold(self) -> float:
        """The decision threshold."""
        return float(self.reference.get("decision_threshold", 0.5))

    @property
    def importances(self) -> Mapping[str, float]:
        """Model input -> how much it moves scores; empty: the card lacks that of an input.

        Another program may write a card, so a value that is no importance counts as missing.
        """
        found = self.card.get("importances")
        names = self.bins.names
        if not isinstance(found, Mapping) or not all(_is_size(found.get(name)) for name in names):
            return {}
        return {name: float(found[name]) for name in names}

    def metric(self, name: str) -> float | None:
        """Return a metric of the held-out rows, such as "auc"; None: the card has none."""
        found = self.card.get("metrics", {}).get(name)
        value = found.get("value") if isinstance(found, Mapping) else found
        return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class DayOfVersion:
    """One day (UTC) of a version in service, which is over."""

    facts: SealedFacts
    policy: MonitoringPolicy
    day: int
    """Unix day, which begins and ends at midnight UTC."""
    shadow: bool
    """Whether it answered no call."""


class DayLook(Protocol):
    """One kind of look, such as drift, quality or uplift.

    A look reads counts and never writes. The runner stores its outcome in one transaction with the
    day, so a look that was interrupted is made again, with the same counts and the same state.
    """

    @property
    def name(self) -> str:
        """The name under which its state is stored, at most 32 characters."""
        ...

    @property
    def after_service(self) -> bool:
        """Whether versions are looked at after their last answer, while their outcomes come."""
        ...

    def look(self, day: DayOfVersion, state: Mapping[str, Any]) -> LookOutcome:
        """Return what the day shows.

        state  the state of the look at the day before; empty before the first.

        Too few data are figures with a reason, and no error. Raises MonitoringStoreError when the
        database does not answer; then the day is looked at again later.
        """
        ...


def _is_size(value: object) -> bool:
    return isinstance(value, int | float) and 0.0 <= value < math.inf


def facts_of_bundle(label: str, bundle: Bundle) -> SealedFacts:
    """Return the facts in a verified bundle."""
    views = {
        f"{use.view.name}:{name}": use.view.name
        for use in bundle.contract.views
        for name in use.features
    }
    dictionaries = {item.name: tuple(item.dictionary) for item in bundle.contract.inputs}
    for use in bundle.contract.views:
        for feature in use.view.features:
            dictionaries[f"{use.view.name}:{feature.name}"] = tuple(feature.dictionary or ())
    return SealedFacts(
        model=bundle.model,
        version=label,
        digest=bundle.digest,
        bins=bins_of_bundle(bundle.model, label, bundle),
        reference=bundle.reference.definition,
        scale=bundle.reference.scale,
        views=views,
        card=bundle.card,
        entities=tuple(bundle.contract.entities),
        dictionaries={name: texts for name, texts in dictionaries.items() if texts},
    )


def facts_of_files(label: str, digest: str, files: Mapping[str, bytes]) -> SealedFacts:
    """Return the facts in the files of a version. Raises VersionRefusedError."""
    return facts_of_bundle(label, verify_bundle(files, trusted_key=None, expected_digest=digest))
