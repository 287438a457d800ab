"""The model contract: the views, request inputs and outputs of a model, and their hashes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from features.canonical import canonical_json, sha256_hex
from features.errors import ContractError
from features.views import View
from host.clock import DAY_MS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TIME_NAMES = ("now:day", "now:second")
"""The model inputs that are the time of a request, as `time_columns` gives them.

One float32 has 24 bits, which are 194 days of seconds. Whole days since 1970 and whole seconds of
the day are exact each, and the nodes in front of a model make exact seconds of both in float64.
"""


@dataclass(frozen=True, kw_only=True)
class RequestInput:
    """One float32 that the caller sends with each row.

    dictionary  texts of a category, in order. The value is the position; an unknown text has the
                value K, the number of entries. Empty for a number.
    """

    name: str
    dictionary: tuple[str, ...] = ()
    default: float | None = None
    """Value of an input that a caller who names inputs leaves out. None means NaN."""

    @property
    def default_value(self) -> float:
        """The default as a float; NaN if *default* is None."""
        return math.nan if self.default is None else self.default

    def definition(self) -> dict[str, Any]:
        """Return the input as JSON values, for contract.json and for the hashes."""
        return {"name": self.name, "dictionary": list(self.dictionary), "default": self.default}

    @staticmethod
    def from_definition(definition: Mapping[str, Any]) -> "RequestInput":
        """Rebuild an input from the return value of `definition`. KeyError: a field is missing."""
        return RequestInput(
            name=definition["name"],
            dictionary=tuple(definition["dictionary"]),
            default=definition["default"],
        )


@dataclass(frozen=True, kw_only=True)
class ViewUse:
    """A view that a model reads, and the features of it, in the order of the model's columns.

    Raises ContractError when a feature is not in the view, or is named twice.
    """

    view: View
    features: tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.features, str):
            raise ContractError(
                f"view {self.view.name!r} is used for features={self.features!r}; write a tuple, "
                f"such as ({self.features!r},)"
            )
        known = {feature.name for feature in self.view.features}
        missing = [name for name in self.features if name not in known]
        if missing or not self.features or len(set(self.features)) != len(self.features):
            raise ContractError(
                f"view {self.view.name!r} is used for {len(self.features)} features, of which it "
                f"does not have {missing}; name each of its features at most once"
            )

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """The position of each used feature in the view's stored row."""
        positions = {feature.name: index for index, feature in enumerate(self.view.features)}
        return tuple(positions[name] for name in self.features)


@dataclass(frozen=True, kw_only=True)
class ModelContract:
    """Everything that fixes a model's input matrix: (B, F) float32, C order.

    The columns are the used features of *views* in order, then *inputs*, then TIME_NAMES if the
    model reads the time.

    entities      the entities that a caller names in Row.keys, in order. The entities of each view
                  are among them.
    request_time  whether the model reads the time of the request.

    Raises ContractError when these contradict each other.
    """

    entities: tuple[str, ...]
    views: tuple[ViewUse, ...] = ()
    inputs: tuple[RequestInput, ...] = ()
    outputs: tuple[str, ...] = ("score",)
    request_time: bool = False

    def __post_init__(self) -> None:
        for use in self.views:
            undeclared = [name for name in use.view.entities if name not in self.entities]
            if undeclared:
                raise ContractError(
                    f"view {use.view.name!r} is keyed by {undeclared}, which the model does not "
                    f"declare; its entities are {list(self.entities)}"
                )
        names = [item.name for item in self.inputs]
        if len(set(names)) != len(names):
            raise ContractError(f"request inputs are named twice: {names}")
        if self.request_time and len(set(self.names)) != len(self.names):
            raise ContractError(
                f"{TIME_NAMES} are the request's time; give the view or input of that name another"
            )
        if self.width == 0 or not self.outputs:
            raise ContractError("a model needs at least one input and one output")

    @property
    def width(self) -> int:
        """F, the number of float32 columns of the model's input matrix."""
        return len(self.names)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The F column names: `view:feature` for features, then inputs, then TIME_NAMES."""
        stored = [f"{use.view.name}:{name}" for use in self.views for name in use.features]
        time = TIME_NAMES if self.request_time else ()
        return (*stored, *(item.name for item in self.inputs), *time)

    @cached_property
    def model_contract(self) -> str:
        """SHA-256 (hex) over views with hashes and used features, inputs, outputs and time."""
        return sha256_hex(
            canonical_json(
                [
                    [[use.view.name, use.view.view_hash, list(use.features)] for use in self.views],
                    [item.definition() for item in self.inputs],
                    list(self.outputs),
                    *(["request_time"] if self.request_time else []),
                ]
            )
        )

    @cached_property
    def input_contract(self) -> str:
        """SHA-256 (hex) over the request inputs alone, which are all that callers depend on."""
        return sha256_hex(canonical_json([item.definition() for item in self.inputs]))

    @cached_property
    def guard(self) -> int:
        """Value of PredictRequest.contract: first 8 bytes of input_contract, little-endian."""
        return int.from_bytes(bytes.fromhex(self.input_contract)[:8], "little")

    def definition(self) -> dict[str, Any]:
        """Return the content of contract.json. It holds the full definition of every view."""
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
            **({"request_time": True} if self.request_time else {}),
            "model_contract": self.model_contract,
            "input_contract": self.input_contract,
        }

    @staticmethod
    def from_definition(definition: dict[str, Any]) -> "ModelContract":
        """Rebuild a contract from the content of contract.json, and check every hash in it.

        Raises ContractError or ViewError when a field is missing or a hash does not fit.
        """
        try:
            # Build the contract from the parts.
            contract = ModelContract(
                entities=tuple(definition["entities"]),
                views=tuple(
                    ViewUse(
                        view=View.from_definition(item["view"]), features=tuple(item["features"])
                    )
                    for item in definition["views"]
                ),
                inputs=tuple(RequestInput.from_definition(item) for item in definition["inputs"]),
                outputs=tuple(definition["outputs"]),
                request_time=definition.get("request_time", False) is True,
            )
            # Compare the hashes that the file states with the hashes of what it holds.
            stated = [
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
        if stated != computed:
            raise ContractError(
                "a hash in contract.json differs from the hash of the views and inputs in it"
            )
        return contract


def time_columns(unix_ms: "NDArray[np.int64]") -> "NDArray[np.float32]":
    """Return (N, 2) float32 for (N,) instants: days since 1970-01-01 UTC, seconds of the day."""
    import numpy as np  # commands that only list versions do without it

    days, left_ms = np.divmod(unix_ms, DAY_MS)
    return np.stack([days, left_ms // 1_000], axis=1).astype(np.float32)


def request_time(unix_ms: int) -> tuple[int, int]:
    """Return the time columns of one instant as numbers that float32 holds exactly."""
    day, left_ms = divmod(unix_ms, DAY_MS)
    return day, left_ms // 1_000
