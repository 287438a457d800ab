"""What a version was built from, as its card keeps it, so that the version can be built again.

The section `built_from` of a card:

    recipe         Recipe.definition()
    audit_views    view hash -> definition of each view that is in no contract
    labels         Labels.definition(); null when the labels were given by code
    labels_sha256  digest of the labelled rows
    views          edition -> number of its last ingest, and the SHA-256 over all of them
    champion       id of the version that it was compared with; empty without one
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from features.contract import ModelContract
from features.errors import ContractError, ViewError
from features.views import View
from training.errors import LabelsError, RecipeError
from training.labelled_rows import LabelledRows
from training.labels import Labels
from training.recipe import Recipe

SECTION = "built_from"
CODE_ROOMS = ("features", "registry", "stats", "training")
"""Rooms whose code makes a version of its inputs."""
IDS_AT_ONCE = 65_536


class IngestedSource(Protocol):
    """The method of features.offline.OfflineStore that names stored data."""

    def ingested(self, view: View) -> tuple[int, str]:
        """Return the number of the view's last ingest, and the SHA-256 of all ingests."""


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """What a card says of its build."""

    recipe: Recipe
    labels_sha256: str
    views: Mapping[str, Mapping[str, Any]]
    """Edition -> `ingest` and `sha256`."""
    champion: str


def build_facts(
    recipe: Recipe, store: IngestedSource, labels: LabelledRows, champion: str
) -> dict[str, Any]:
    """Return the section `built_from` of a card.

    champion  id of the version to compare with; empty without one.
    """
    used = {use.view.view_hash: use.view for use in (*recipe.features, *recipe.audit)}
    read = {use.view.view_hash for use in recipe.features}
    views = {}
    for view in used.values():
        number, digest = store.ingested(view)
        views[edition(view)] = {"ingest": number, "sha256": digest}
    return {
        "recipe": recipe.definition(),
        "audit_views": {name: view.definition() for name, view in used.items() if name not in read},
        "labels": None if recipe.labels is None else recipe.labels.definition(),
        "labels_sha256": labels_digest(labels),
        "views": views,
        "champion": champion,
    }


def maturity_facts(labels: LabelledRows) -> dict[str, int]:
    """Return what the section `data` of a card says of known times; nothing where none are known.

    Labels that were read up to `known_until_ms` are found again in a table that has grown.
    """
    if not labels.known_until_ms:
        return {}
    return {"known_until_ms": labels.known_until_ms, "immature_rows": labels.immature}


def read_build(card: Mapping[str, Any], contract: ModelContract) -> BuildRecord | None:
    """Return what the card of a version with *contract* says of its build; None: it says nothing.

    Raises RecipeError when the recipe that it names cannot be made again.
    """
    if SECTION not in card:
        return None
    try:
        section = card[SECTION]
        views = {use.view.view_hash: use.view for use in contract.views}
        for view_hash, definition in section["audit_views"].items():
            views[view_hash] = View.from_definition(definition)
        labels = {}
        if section["labels"] is not None:
            found = Labels.from_definition(section["labels"])
            labels[found.name] = found
        return BuildRecord(
            recipe=Recipe.from_definition(section["recipe"], views, labels),
            labels_sha256=section["labels_sha256"],
            views=section["views"],
            champion=section["champion"],
        )
    except (KeyError, TypeError, AttributeError, ContractError, LabelsError, ViewError) as error:
        raise RecipeError(f"the card's record of its build cannot be read: {error!r}") from error


def edition(view: View) -> str:
    """Return the name of a view's edition, which is that of its folder in the offline store."""
    return f"{view.name}@{view.view_hash[:16]}"


def labels_digest(labels: LabelledRows) -> str:
    """Return the SHA-256 (hex) of ids, instants, outcomes and request inputs, in their order."""
    digest = hashlib.sha256()
    for item in fields(labels):
        value = getattr(labels, item.name)
        # Numbers beside the rows, such as how many were left out, are no rows.
        if isinstance(value, Mapping):
            columns = [(f"{item.name}.{name}", value[name]) for name in sorted(value)]
        elif isinstance(value, np.ndarray):
            columns = [(item.name, value)]
        else:
            continue
        for name, column in columns:
            digest.update(f"{name}:{len(column)}\n".encode())
            for part in _parts(column):
                digest.update(part)
    return digest.hexdigest()


def _parts(column: Any) -> Iterable[bytes]:  # noqa: ANN401  a list or an array of any type
    """Yield the bytes of a column. Texts and mixed values are written as Python shows them."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "biuf":
        masked = np.ma.getmaskarray(column)
        yield np.ascontiguousarray(np.ma.getdata(column)).tobytes()
        if masked.any():
            yield masked.tobytes()
        return
    for start in range(0, len(column), IDS_AT_ONCE):
        part = column[start : start + IDS_AT_ONCE]
        values = part.tolist() if isinstance(part, np.ndarray) else part
        yield "\x1f".join(map(repr, values)).encode()


@cache
def code_digest() -> str:
    """Return the SHA-256 (hex) of the code that makes versions, as it lies on the disk."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    for path in sorted(path for room in CODE_ROOMS for path in (root / room).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
