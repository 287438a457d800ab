"""The entities of every view and every model that the registry or the project knows.

Rows of former editions and calls of former versions count too, so all versions are read and not the
deployed ones only.
"""

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from features.contract import ModelContract
from features.entity_ids import check_entity_id
from features.views import View
from registry.client import RegistryClient
from turnout.cli.context import CommandContext
from turnout.cli.projects import usable_definitions
from turnout.errors import UsageError

OUTSIDE_KEY = "key"
"""The entity of an id where only models elsewhere have ids."""
FETCHES_MAX = 8
"""Versions that are fetched at once."""


@dataclass(frozen=True, slots=True)
class KnownEntities:
    """What is keyed by which entities, in order."""

    views: Mapping[str, tuple[str, ...]]
    """`<view>@<first 16 hex digits of its hash>`, and `<view>` -> the entities."""
    models: Mapping[tuple[str, str], tuple[str, ...]]
    """(model, model contract) -> the entities of the model's rows."""
    versions: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Model -> version label -> the entities of its rows."""
    outside_models: tuple[str, ...]
    """Models that other systems serve. What their keys are is not known."""
    split_salts: Mapping[str, bytes]
    """Model -> the salt of its split at present."""
    version_public_key: bytes
    """The key that identifies the system."""
    prediction_id_key: bytes
    """The key of prediction ids; empty for a caller whose roles do not see it."""

    def of_edition(self, edition: str) -> tuple[str, ...] | None:
        """Return the entities of `<view>@<hash>`, or of the view if this edition is unknown."""
        return self.views.get(edition) or self.views.get(edition.partition("@")[0])

    def models_with(self, named: Collection[str]) -> list[str]:
        """Return the models whose rows have all these entities, by name.

        A model elsewhere has them if there is one entity, because its keys may be those.
        """
        outside = self.outside_models if len(named) == 1 else ()
        own = {model for (model, _), has in self.models.items() if set(named) <= set(has)}
        return sorted({*own, *outside})

    def combinations(self) -> list[tuple[str, ...]]:
        """Return each combination of entities once, in order of their names."""
        return sorted({*self.views.values(), *(item for item in self.models.values() if item)})


async def known_entities(context: CommandContext, client: RegistryClient) -> KnownEntities:
    """Return the entities of the project's views, and of all versions in the registry."""
    limit = asyncio.Semaphore(FETCHES_MAX)

    async def contract_of(model: str, label: str) -> ModelContract:
        async with limit:
            files = await client.fetch(model, label)
        return ModelContract.from_definition(json.loads(files["contract.json"]))

    # One version for each contract of a model.
    summaries = await client.list_models()
    labels: dict[tuple[str, str], str] = {}
    contract_of_label: dict[str, dict[str, str]] = {}
    for summary in summaries:
        of_model = contract_of_label[summary.model] = {}
        for version in await client.list_versions(summary.model):
            labels[summary.model, version.model_contract] = version.label
            of_model[version.label] = version.model_contract
    contracts = await asyncio.gather(
        *(contract_of(model, label) for (model, _), label in labels.items())
    )
    keys = await client.serving_keys()
    # The project's views may have rows that no version reads.
    views = [use.view for contract in contracts for use in contract.views]
    if context.project is not None:
        definitions = await usable_definitions(context)
        views += [definitions.view(name) for name in definitions.views]
    models = {key: contract.entities for key, contract in zip(labels, contracts, strict=True)}
    return KnownEntities(
        views=_by_name(views),
        models=models,
        versions={
            model: {label: models[model, contract] for label, contract in of_model.items()}
            for model, of_model in contract_of_label.items()
        },
        outside_models=tuple(item.model for item in await client.outside_models()),
        split_salts={
            summary.model: summary.deployment.split_salt
            for summary in summaries
            if summary.deployment.split_salt
        },
        version_public_key=keys.version_public_key,
        prediction_id_key=keys.prediction_id_key,
    )


def named_entities(
    keys: Sequence[str], entities: Sequence[str], known: KnownEntities
) -> dict[str, str]:
    """Return entity -> id. Raises UsageError when it is not clear, EntityIdError for a bad id."""
    for text in keys:
        check_entity_id(text)
    combinations = known.combinations()
    # Where only other systems serve models, an id may be of any entity.
    if not combinations and known.outside_models and len(keys) == 1:
        combinations = [(entities[0] if entities else OUTSIDE_KEY,)]
    shown = "; ".join(", ".join(names) for names in combinations) or "nothing"
    # Without names, the ids must fit one combination only.
    if not entities:
        fitting = [names for names in combinations if len(names) == len(keys)]
        if len(fitting) != 1:
            raise UsageError(
                f"say with --entity whose ids these are, once for each of the {len(keys)}; views "
                f"and models are keyed by: {shown}"
            )
        entities = fitting[0]
    if len(entities) != len(keys) or len(set(entities)) != len(entities):
        raise UsageError(f"{len(keys)} ids came with --entity {list(entities)}; name one for each")
    if not any(set(entities) <= set(names) for names in combinations):
        raise UsageError(
            f"nothing is keyed by {', '.join(entities)}; views and models are keyed by: {shown}"
        )
    return dict(zip(entities, keys, strict=True))


def _by_name(views: list[View]) -> dict[str, tuple[str, ...]]:
    """Return the entities by edition, and by name for editions out of use."""
    editions = {f"{view.name}@{view.view_hash[:16]}": view.entities for view in views}
    return {**{view.name: view.entities for view in views}, **editions}
