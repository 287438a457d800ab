"""Reasons in words: groups of inputs, who may be told of them, and who can change them.

The author of a recipe declares them (`turnout.define.Reasons`), training checks them and seals them
in the version as reasons.toml, and explanations read that file. So a decision is explained in the
words of its own version, also years later.
"""

import json
import math
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

REASONS = "reasons.toml"
FORMAT = 1
GROUPS_MAX = 64
TEXT_CHARS_MAX = 400
"""Characters of the words of one group in one language."""
LANGUAGE_CHARS_MAX = 16
REASONS_MAX = 4
"""Reasons that a person is told, as Regulation B advises (12 CFR 1002.9, comment 9(b)(2))."""

AdverseSide = Literal["above", "below"]
ChangeDirection = Literal["up", "down", "any"]


class ReasonsError(ValueError):
    """Reasons contradict themselves, or name what the model does not have."""


@dataclass(frozen=True, kw_only=True)
class ReasonGroup:
    """Inputs that are told as one reason.

    name        of the group, for files and reports.
    features    inputs of the model: `view:feature`, or the name of a request input. A feature that
                is computed on demand belongs to the inputs that it is made of.
    texts       language -> the reason in words, such as {"en": "Your contract is short."}.
    disclosed   whether the person may be told.
    protected   whether the group is about something that no decision may rest on.
    changeable  whether the person can change it.
    direction   where a change may go: "up", "down" or "any".

    Raises ReasonsError.
    """

    name: str
    features: Sequence[str]
    texts: Mapping[str, str] = field(default_factory=dict)
    disclosed: bool = True
    protected: bool = False
    changeable: bool = False
    direction: ChangeDirection = "any"

    def __post_init__(self) -> None:
        if not self.name or isinstance(self.features, str) or not self.features:
            raise ReasonsError(
                f"the reason group {self.name!r} has the features {self.features!r}; give it a "
                "name, and a tuple of the model's inputs"
            )
        if self.direction not in get_args(ChangeDirection):
            raise ReasonsError(
                f"the reason group {self.name!r} changes {self.direction!r}; it is up, down or any"
            )
        if self.disclosed and self.protected:
            raise ReasonsError(
                f"the reason group {self.name!r} is protected and disclosed; where a protected "
                "group decides, that is a finding and no reason: set disclosed=False"
            )
        if self.disclosed and not self.texts:
            raise ReasonsError(
                f"the reason group {self.name!r} is disclosed and has no texts; give texts such as "
                '{"en": "..."}, or set disclosed=False'
            )
        for language, text in self.texts.items():
            plain = text.isprintable() and 0 < len(text) <= TEXT_CHARS_MAX
            if not plain or not language or len(language) > LANGUAGE_CHARS_MAX:
                raise ReasonsError(
                    f"the texts of the reason group {self.name!r} in {language!r} are none: one "
                    f"line of 1 to {TEXT_CHARS_MAX} printable characters"
                )

    def definition(self) -> dict[str, Any]:
        """Return the group as JSON values."""
        return {
            "name": self.name,
            "features": list(self.features),
            "disclosed": self.disclosed,
            "protected": self.protected,
            "changeable": self.changeable,
            "direction": self.direction,
            "texts": dict(self.texts),
        }


@dataclass(frozen=True, kw_only=True)
class Reasons:
    """What a person is told about a decision at the threshold.

    adverse  which decision is adverse to the person: a score at or "above" the threshold, or
             "below" it. Reasons are given for adverse decisions only.
    groups   the groups; an input is in one at most. Inputs in none may not be told.

    Raises ReasonsError when these contradict each other.
    """

    adverse: AdverseSide
    groups: Sequence[ReasonGroup]

    def __post_init__(self) -> None:
        if self.adverse not in get_args(AdverseSide):
            raise ReasonsError(f"the adverse side is {self.adverse!r}; it is 'above' or 'below'")
        if not 0 < len(self.groups) <= GROUPS_MAX:
            raise ReasonsError(f"{len(self.groups)} reason groups; there are 1 to {GROUPS_MAX}")
        names = Counter(group.name for group in self.groups)
        inputs = Counter(name for group in self.groups for name in group.features)
        for kind, counted in (("group", names), ("feature", inputs)):
            twice = [name for name, count in counted.items() if count > 1]
            if twice:
                raise ReasonsError(f"the {kind} {twice[0]!r} is in the reasons twice; name it once")
        languages = [set(group.texts) for group in self.groups if group.disclosed]
        if any(other != languages[0] for other in languages[1:]):
            raise ReasonsError(
                f"the reason groups have texts in {sorted(set().union(*languages))}, and not each "
                "group in all of them; a person is told in one language"
            )

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of the words, sorted."""
        return tuple(sorted({language for group in self.groups for language in group.texts}))

    def check_names(self, names: Sequence[str]) -> None:
        """Raise ReasonsError for a feature that is not among the model's input *names*."""
        unknown = [name for group in self.groups for name in group.features if name not in names]
        if unknown:
            raise ReasonsError(
                f"the reasons name {unknown[0]!r}, which is no input of the model; its inputs are "
                f"{', '.join(names)}"
            )

    def definition(self) -> dict[str, Any]:
        """Return the reasons as JSON values."""
        return {
            "adverse": self.adverse,
            "groups": [group.definition() for group in self.groups],
        }

    @staticmethod
    def from_definition(definition: Mapping[str, Any]) -> "Reasons":
        """Rebuild reasons from the return value of `definition`, or from reasons.toml.

        Raises ReasonsError when a field is missing or wrong.
        """
        try:
            return Reasons(
                adverse=definition["adverse"],
                groups=tuple(ReasonGroup(**group) for group in definition["groups"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ReasonsError(f"not reasons: {error!r}") from error

    def to_toml(self) -> bytes:
        """Return the content of reasons.toml; the same reasons give the same bytes."""
        lines = [f"format = {FORMAT}", f"adverse = {_toml(self.adverse)}"]
        for group in self.groups:
            definition = group.definition()
            texts = definition.pop("texts")
            lines += ["", "[[groups]]"]
            lines += [f"{name} = {_toml(value)}" for name, value in definition.items()]
            lines += ["", "[groups.texts]"] if texts else []
            lines += [f"{_toml(language)} = {_toml(texts[language])}" for language in sorted(texts)]
        return ("\n".join(lines) + "\n").encode()


def read_reasons(content: bytes) -> Reasons:
    """Return the reasons of a version's reasons.toml. Raises ReasonsError."""
    try:
        definition = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ReasonsError(f"{REASONS} is no TOML: {error}") from error
    if definition.get("format") != FORMAT:
        raise ReasonsError(f"{REASONS} has the format {definition.get('format')!r}, not {FORMAT}")
    return Reasons.from_definition(definition)


def _toml(value: str | bool | Sequence[str]) -> str:
    """Return a TOML value. The escapes of JSON's strings are TOML's too."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return "[" + ", ".join(_toml(item) for item in value) + "]"


@dataclass(frozen=True, slots=True)
class ReasonShare:
    """One group among those that moved a decision to the adverse side.

    share  of the adverse gap, above 0.
    """

    group: ReasonGroup | None
    """None: inputs in no group."""
    inputs: tuple[str, ...]
    contribution: float
    share: float

    @property
    def problem(self) -> str:
        """Why the person may not be told; "" if they may."""
        if self.group is None:
            return f"{' and '.join(self.inputs)} is in no group of {REASONS}"
        if self.group.protected:
            return f"the group {self.group.name} is protected, and the decision rests on it"
        return "" if self.group.disclosed else f"the group {self.group.name} may not be told"


SHARE_MIN = 0.05
"""A reason has at least this share of the adverse gap."""


def rank_reasons(
    reasons: Reasons, contributions: Sequence[tuple[tuple[str, ...], float]], most: int
) -> tuple[ReasonShare, ...]:
    """Return at most *most* groups that moved a score to the adverse side, the largest first.

    contributions  (inputs, contribution), against the rows that got the favourable decision. What
                   several inputs contribute together is told as the group of the first input that
                   has one, and only if no input belongs to another group.
    """
    sign = 1.0 if reasons.adverse == "above" else -1.0
    group_of = {name: group for group in reasons.groups for name in group.features}
    moved: dict[str, list[float]] = {}
    found: dict[str, tuple[ReasonGroup | None, dict[str, None]]] = {}
    for inputs, contribution in contributions:
        groups = {group_of[name].name: group_of[name] for name in inputs if name in group_of}
        # Inputs of two groups, or with one of none, cannot be told as one of them.
        one = len(groups) == 1 and all(name in group_of for name in inputs)
        group = next(iter(groups.values())) if one else None
        key = "+".join(inputs) if group is None else f"group {group.name}"
        moved.setdefault(key, []).append(sign * contribution)
        found.setdefault(key, (group, {}))[1].update(dict.fromkeys(inputs))
    sums = {key: math.fsum(parts) for key, parts in moved.items()}
    gap = math.fsum(sums.values())
    # A score that did not move to the adverse side has no adverse gap: count what pushed there.
    gap = gap if gap > 0.0 else math.fsum(value for value in sums.values() if value > 0.0)
    ranked = sorted((key for key, value in sums.items() if value > 0.0), key=lambda key: -sums[key])
    return tuple(
        ReasonShare(found[key][0], tuple(found[key][1]), sign * sums[key], sums[key] / gap)
        for key in ranked[:most]
        if sums[key] >= SHARE_MIN * gap
    )
