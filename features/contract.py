"""What a model is fed: its views, its request inputs, its outputs, and the hashes of these."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from features.canonical import canonical_json, sha256_hex
from features.errors import ContractError
from features.views import View


@dataclass(frozen=True, kw_only=True)
class RequestInput:
    """One float32 the caller sends. A category is coded by position; unknown = K."""

    name: str
    dictionary: tuple[str, ...] = ()
    default: float | None = None
    """For named inputs left out; None: NaN."""

    @property
    def default_value(self) -> float:
        """The default as a number: NaN where *default* is None."""
        return math.nan if self.default is None else self.default

    def definition(self) -> dict[str, Any]:
        """Return what is hashed, as JSON values."""
        return {"name": self.name, "dictionary": list(self.dictionary), "default": self.default}


@dataclass(frozen=True, kw_only=True)
class ViewUse:
    """A view a model reads, and which of its features, in the order the model sees them."""

    view: View
    features: tuple[str, ...]

    def __post_init__(self) -> None:
        known = {feature.name for feature in self.view.features}
        missing = [name for name in self.features if name not in known]
        if missing or not self.features or len(set(self.features)) != len(self.features):
            raise ContractError(
                f"view {self.view.name!r} is used for {len(self.features)} features, of which it "
                f"does not have {missing}; name each of its features at most once"
            )

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """Position of each used feature in the view's stored row."""
        place = {feature.name: index for index, feature in enumerate(self.view.features)}
        return tuple(place[name] for name in self.features)


@dataclass(frozen=True, kw_only=True)
class ModelContract:
    """The model sees (B, F) float32: the used features of *views* in order, then *inputs*.

    entities   what a caller names in Row.keys, in order; each view's entities are among them.
    """

    entities: tuple[str, ...]
    views: tuple[ViewUse, ...] = ()
    inputs: tuple[RequestInput, ...] = ()
    outputs: tuple[str, ...] = ("score",)

    def __post_init__(self) -> None:
        for use in self.views:
            strangers = [name for name in use.view.entities if name not in self.entities]
            if strangers:
                raise ContractError(
                    f"view {use.view.name!r} is keyed by {strangers}, which the model does not "
                    f"declare; its entities are {list(self.entities)}"
                )
        names = [item.name for item in self.inputs]
        if len(set(names)) != len(names):
            raise ContractError(f"request inputs are named twice: {names}")
        if self.width == 0 or not self.outputs:
            raise ContractError("a model needs at least one input and one output")

    @property
    def width(self) -> int:
        """F: how many float32 the model sees a row."""
        return sum(len(use.features) for use in self.views) + len(self.inputs)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The F column names: `view:feature`, then the request inputs' own names."""
        stored = [f"{use.view.name}:{name}" for use in self.views for name in use.features]
        return (*stored, *(item.name for item in self.inputs))

    @cached_property
    def model_contract(self) -> str:
        """SHA-256 (hex) over the views with hashes and features used, request inputs, outputs."""
        return sha256_hex(
            canonical_json(
                [
                    [[u.view.name, u.view.view_hash, list(u.features)] for u in self.views],
                    [item.definition() for item in self.inputs],
                    list(self.outputs),
                ]
            )
        )

    @cached_property
    def input_contract(self) -> str:
        """SHA-256 (hex) over the request inputs alone: what callers depend on."""
        return sha256_hex(canonical_json([item.definition() for item in self.inputs]))

    @cached_property
    def guard(self) -> int:
        """What PredictRequest.contract must say: input_contract's first 8 bytes, little-endian."""
        return int.from_bytes(bytes.fromhex(self.input_contract)[:8], "little")

    def definition(self) -> dict[str, Any]:
        """Return contract.json, whole: views with their full definitions, so it stands alone."""
        return {
            "entities": list(self.entities),
            "views": [
                {
                    "view": use.view.definition(),
                    "view_hash": use.view.view_hash,
                    "features": list(use.features),
                }
                for use in self.views
            ],
            "inputs": [item.definition() for item in self.inputs],
            "outputs": list(self.outputs),
            "model_contract": self.model_contract,
            "input_contract": self.input_contract,
        }

    @staticmethod
    def from_definition(definition: dict[str, Any]) -> "ModelContract":
        """Rebuild a contract from contract.json and check every hash in it.

        Raises ContractError (or ViewError) when it does not hold together.
        """
        try:
            contract = ModelContract(
                entities=tuple(definition["entities"]),
                views=tuple(
                    ViewUse(
                        view=View.from_definition(item["view"]), features=tuple(item["features"])
                    )
                    for item in definition["views"]
                ),
                inputs=tuple(
                    RequestInput(
                        name=item["name"],
                        dictionary=tuple(item["dictionary"]),
                        default=item["default"],
                    )
                    for item in definition["inputs"]
                ),
                outputs=tuple(definition["outputs"]),
            )
            written = [
                definition["model_contract"],
                definition["input_contract"],
                *(item["view_hash"] for item in definition["views"]),
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise ContractError(f"not a model contract: {error!r}") from error
        computed = [
            contract.model_contract,
            contract.input_contract,
            *(use.view.view_hash for use in contract.views),
        ]
        if written != computed:
            raise ContractError("a hash in contract.json is not the hash of what it names")
        return contract
