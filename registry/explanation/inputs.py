"""What the inputs of a model mean: words, bounds and defaults; and a row from named inputs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from features.contract import TIME_NAMES, ModelContract
from registry.explanation.errors import NotExplainedError


@dataclass(frozen=True, slots=True)
class InputKind:
    """One input of a model.

    dictionary  words of a category in the order of its codes; () for a number.
    low         the lowest valid number, or -inf.
    high        the highest valid number, or inf.
    default     where no value is given; NaN if there is none.
    """

    dictionary: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    default: float = math.nan


def input_kinds(contract: ModelContract) -> dict[str, InputKind]:
    """Return input -> what it means, without the request's time."""
    kinds = {
        item.name: InputKind(item.dictionary, default=item.default_value)
        for item in contract.inputs
    }
    for use in contract.views:
        for index in use.columns:
            feature = use.view.features[index]
            low, high = feature.bounds or (-math.inf, math.inf)
            kinds[f"{use.view.name}:{feature.name}"] = InputKind(
                feature.dictionary, float(low), float(high), feature.default_value
            )
    return kinds


def row_of_names(
    contract: ModelContract, named: Mapping[str, float], texts: Mapping[str, str]
) -> list[float]:
    """Return the (F,) row with these inputs, and the default of every other input.

    named  input -> number. A part after the colon is enough where it names one input.
    texts  input -> word of its dictionary; another word has the code of unknown.

    Raises NotExplainedError for a name that is no input, and for the time of a request that the
    model reads and that is not given.
    """
    # Names are completed first, so that a wrong one is refused whatever else is given.
    kinds = input_kinds(contract)
    numbers = {_full_name(name, contract): value for name, value in named.items()}
    words = {_full_name(name, contract): text for name, text in texts.items()}
    # A word has its code, and what is left out its default.
    row: list[float] = []
    for name in contract.names:
        if name in words:
            known = kinds[name].dictionary if name in kinds else ()
            if not known:
                raise NotExplainedError(f"{name!r} is a number, and {words[name]!r} is none")
            row.append(float(known.index(words[name]) if words[name] in known else len(known)))
        elif name in numbers:
            row.append(numbers[name])
        elif name in TIME_NAMES:
            raise NotExplainedError(
                f"the model reads the time of a request; give {' and '.join(TIME_NAMES)}: days "
                "since 1970 and seconds of the day, UTC"
            )
        else:
            row.append(kinds[name].default)
    return row


def _full_name(name: str, contract: ModelContract) -> str:
    found = [item for item in contract.names if name in (item, item.partition(":")[2])]
    if len(found) == 1:
        return found[0]
    known = ", ".join(found or contract.names)
    raise NotExplainedError(f"{name!r} names {len(found)} inputs of the version; it has {known}")
