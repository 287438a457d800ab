"""Reads the audited features of held-out rows, and compares what a version decides about them."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from features.contract import ModelContract
from features.offline import Spine, TrainingSet
from training.evaluation.fairness import Attribute, categories, numbers
from training.labelled_rows import LabelledRows
from training.recipe import Recipe

Compare = Callable[[Attribute], Mapping[str, dict[str, Any]]]
"""Compares the groups of an attribute: ending of its name -> comparison, as JSON values."""


class AuditSource(Protocol):
    """The method of features.offline.OfflineStore that reads audited features."""

    def training_set(
        self, contract: ModelContract, spine: Spine, *, with_known: bool = False
    ) -> TrainingSet:
        """Return the features as they were known at each instant of *spine*."""


def fairness_report(
    recipe: Recipe,
    store: AuditSource,
    held_out_labels: LabelledRows,
    compare: Compare,
) -> dict[str, Any]:
    """Return audited feature -> the comparison of its values, as JSON values for the card.

    compare  the task's comparison of what is decided about the held-out rows.
    """
    if not recipe.audit:
        return {}
    # The audited features are read here, because the model need not read them.
    audit = ModelContract(entities=recipe.contract.entities, views=recipe.audit)
    found = store.training_set(audit, held_out_labels.spine, with_known=True)
    assert found.known is not None
    # Texts of a category are its groups, and numbers are groups or in bands.
    features = [use.view.features[column] for use in recipe.audit for column in use.columns]
    report: dict[str, Any] = {}
    for index, (name, feature) in enumerate(zip(audit.names, features, strict=True)):
        values, known = found.values[:, index], found.known[:, index]
        groups = (
            categories(name, values, known, feature.dictionary)
            if feature.dictionary
            else numbers(name, values, known, recipe.band_edges.get(name, ()))
        )
        report |= {f"{name}{ending}": item for ending, item in compare(groups).items()}
    return report
