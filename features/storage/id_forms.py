"""Describes the form of ids, and how the forms of two sides differ, without showing an id.

Ids may be the numbers or names of people, so a message shows `5 digits` and never the id.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from features.entity_ids import SEPARATOR

PREFIX_LETTERS_MAX = 8
PREFIX_IDS_MIN = 10
PREFIX_SHARE_MIN = 0.9
"""A prefix is shown when so many of the ids have it: then it belongs to the form, not to an id."""

RUNS_MAX = 6
"""The form of an id with more runs of digits, letters and signs is its length."""

_RUN = re.compile(r"\d+|[^\W\d_]+|\s+|[\W_]")
_PREFIX = re.compile(rf"[^\d\s]{{1,{PREFIX_LETTERS_MAX}}}(?=\d)")


@dataclass(frozen=True, slots=True)
class Normalisation:
    """One way to make ids of two forms equal.

    name  how the ids differ, to follow "ids that differ by".
    sql   a SQL expression of an id named {id}.
    """

    name: str
    sql: str


NORMALISATIONS = (
    Normalisation("spaces around them", "trim({id})"),
    Normalisation("capital and small letters", "lower(trim({id}))"),
    Normalisation("a decimal point (numbers read as floats)", r"regexp_replace({id}, '\.0+$', '')"),
    Normalisation("leading zeros", "ltrim(trim({id}), '0')"),
    Normalisation("a prefix", r"regexp_replace({id}, '^[^0-9]+', '')"),
    Normalisation(
        "everything but the digits", r"ltrim(regexp_replace({id}, '[^0-9]', '', 'g'), '0')"
    ),
)
"""From the simplest to the one that leaves the least of an id."""


def normalised_sql(normalisation: Normalisation, column: str, entities: int) -> str:
    """Return SQL for the joined ids in *column*, each of the *entities* ids normalised."""
    separator = f"chr({SEPARATOR[0]})"
    parts = [
        normalisation.sql.format(id=f"split_part({column}, {separator}, {number})")
        for number in range(1, entities + 1)
    ]
    return f" || {separator} || ".join(parts)


def id_form(joined_ids: Sequence[str]) -> str:
    """Return the commonest form of *joined_ids*, such as `'S' + 6 digits`. Empty without ids."""
    if not joined_ids:
        return ""
    # Each entity of a composite has a form of its own.
    separator = SEPARATOR.decode()
    entities = zip(*(joined.split(separator) for joined in joined_ids), strict=True)
    return " and ".join(_commonest_form(ids) for ids in entities)


def _commonest_form(ids: Sequence[str]) -> str:
    prefix = _common_prefix(ids)
    forms = Counter(_form(item, prefix) for item in ids)
    return forms.most_common(1)[0][0]


def _common_prefix(ids: Sequence[str]) -> str:
    """Return the text before the digits that nearly all ids have; empty when there is none."""
    if len(set(ids)) < PREFIX_IDS_MIN:
        return ""
    found = Counter(match[0] for item in ids if (match := _PREFIX.match(item)))
    prefix, count = found.most_common(1)[0] if found else ("", 0)
    return prefix if count >= PREFIX_SHARE_MIN * len(ids) else ""


def _form(item: str, prefix: str) -> str:
    shown = []
    if prefix and item.startswith(prefix):
        shown.append(f"'{prefix}'")
        item = item.removeprefix(prefix)
    runs = _RUN.findall(item)
    if len(runs) > RUNS_MAX:
        return f"{len(item)} letters, digits and signs"
    return " + ".join([*shown, *(_run_form(run) for run in runs)])


def _run_form(run: str) -> str:
    if run.isdigit():
        return _counted(len(run), "digit")
    if run.isspace():
        return _counted(len(run), "space")
    if run.isalpha():
        case = "capital " if run.isupper() else "small " if run.islower() else ""
        return _counted(len(run), f"{case}letter")
    return f"'{run}'"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
