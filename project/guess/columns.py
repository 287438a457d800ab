"""Guesses what each column of a table is. Each guess has its reason."""

import json
import keyword
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from features.storage.database import identifier, quoted
from host.clock import DAY_MS
from project.errors import ProjectError
from project.guess.leaks import leaking_columns
from project.guess.table import Table, TableColumn

CATEGORIES_MAX = 50
"""A text column with more different values is left out."""
LABEL_NAMES = ("label", "target", "outcome", "churned", "churn", "converted", "bought", "bad")
ENTITY_NAME = re.compile(
    r"(^|_| )(id|key|number|msisdn|subscriber|customer|account)$", re.IGNORECASE
)
POSITIVE_TEXTS = ("1", "1.0", "true", "t", "yes", "y", "positive", "churned", "bad", "bought")
TTL_DAYS_MIN = 30
TIMES_FROM_MS, TIMES_UNTIL_MS = 631_152_000_000, 4_102_444_800_000
"""The beginnings of 1990 and 2100: numbers that are no times are seldom between them."""
EPOCHS = {"s": 1e9, "ms": 1e12, "us": 1e15, "ns": 1e18}
"""Unit -> the order of a present instant counted from 1970 in it."""
TO_MS = {"s": "* 1000", "ms": "", "us": "// 1000", "ns": "// 1000000"}


@dataclass(frozen=True, slots=True)
class GuessedFeature:
    """A column that becomes a feature."""

    name: str
    sql: str
    """The expression in the transform, without its alias."""
    arguments: str
    """Arguments of Feature as Python text, without the name."""
    reason: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A column that does not become a feature."""

    column: str
    reason: str
    leaks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """Everything that was guessed from one table."""

    table: str
    """The file's name without suffix, as a name of a view."""
    rows: int
    entity: str
    entity_name: str
    entity_reason: str
    time: str
    time_arguments: str
    """Further arguments of Source as Python text, such as `zone="UTC"`."""
    time_reason: str
    ttl_days: int
    ttl_reason: str
    label: str
    label_name: str
    label_reason: str
    positive: tuple[str, ...]
    features: tuple[GuessedFeature, ...]
    left_out: tuple[LeftOut, ...] = field(default=())


def guess_columns(
    table: Table, *, entity: str, time: str, label: str, positive: str, now_ms: int
) -> Guess:
    """Guess from *table* what is not given; an empty text means that it is guessed.

    positive  the value of the label that counts as positive.

    Raises ProjectError when a given column does not exist, or a guess would be arbitrary.
    """
    # A typing error is named before anything is guessed.
    for column in (entity, time, label):
        if column and column not in table.columns:
            raise ProjectError(
                f"{table.path.name} has no column {column!r}; it has {', '.join(table.columns)}"
            )
    # What the row is about, when it was so, and what came of it.
    entity_column, entity_reason = _entity(table, entity)
    time_column, time_arguments, instant, time_reason = _time(table, time)
    _check_times(table, time_column.name, instant)
    label_column, label_reason = _label(table, label, {entity_column.name, time_column.name})
    positives, positive_sql, positive_reason = _positive(table, label_column, positive)
    # All other columns are features, unless something speaks against it.
    used = {entity_column.name, time_column.name, label_column.name}
    others = [column for name, column in table.columns.items() if name not in used]
    leaks = leaking_columns(table, [item for item in others if item.distinct], positive_sql)
    features, left_out = _features(table, others, leaks, feature_name(entity_column.name))
    if not features:
        reasons = "; ".join(f"{item.column}: {item.reason}" for item in left_out)
        raise ProjectError(f"no column of {table.path.name} can be a feature: {reasons}")
    ttl_days, ttl_reason = _ttl(table, entity_column.name, instant, now_ms)
    return Guess(
        table=feature_name(table.path.name.split(".")[0]),
        rows=table.rows,
        entity=entity_column.name,
        entity_name=feature_name(entity_column.name),
        entity_reason=entity_reason,
        time=time_column.name,
        time_arguments=time_arguments,
        time_reason=time_reason,
        ttl_days=ttl_days,
        ttl_reason=ttl_reason,
        label=label_column.name,
        label_name=feature_name(label_column.name),
        label_reason=f"{label_reason}; {positive_reason}",
        positive=positives,
        features=tuple(features),
        left_out=tuple(left_out),
    )


def feature_name(column: str) -> str:
    """Return a column's name as a name of Turnout: small letters, digits and underscores.

    A letter with an accent becomes the plain letter.
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column)
    letters = unicodedata.normalize("NFKD", spaced.casefold())
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    name = name if name[:1].isalpha() and not keyword.iskeyword(name) else f"c_{name}"
    return name[:64].rstrip("_")


def _entity(table: Table, given: str) -> tuple[TableColumn, str]:
    if given:
        column = table.columns[given]
        return column, f"given; {column.distinct:,} different ids in {table.rows:,} rows"
    candidates = [
        column
        for column in table.columns.values()
        if ENTITY_NAME.search(column.name) and not column.missing and not column.is_instant
    ]
    if not candidates:
        raise ProjectError(
            f"no column of {table.path.name} looks like an id without gaps; name it with --entity"
        )
    column = max(candidates, key=lambda item: item.distinct)
    return column, (
        f"its name looks like an id, it is never missing, and it has {column.distinct:,} different "
        f"values in {table.rows:,} rows"
    )


def _time(table: Table, given: str) -> tuple[TableColumn, str, str, str]:
    """Return the time column, arguments of its source, SQL of its Unix ms, and the reason."""
    # Two candidates have different meanings, and nothing in the data says which one is meant.
    instants = [column for column in table.columns.values() if column.is_instant]
    if not given and len(instants) != 1:
        found = ", ".join(column.name for column in instants) or "none"
        raise ProjectError(
            f"{table.path.name} has {len(instants)} columns with dates or times ({found}); name "
            "with --time the one at which a row was true. A table without any needs one, such as "
            "the day of its extraction"
        )
    column = table.columns[given] if given else instants[0]
    why = "given" if given else "the only column with dates or times"
    column_sql = identifier(column.name)
    # A timestamp, with or without a zone of its own.
    if column.is_instant:
        instant = f"epoch_ms({column_sql}::TIMESTAMP)"
        if "TIME ZONE" in column.kind:
            return column, "", f"epoch_ms({column_sql})", f"{why}; it has a time zone itself"
        return (
            column,
            'zone="UTC"',
            instant,
            f"{why}; it has no time zone, so UTC is assumed: correct it if the times are local",
        )
    # A number that counts from 1970.
    if column.is_number and (numbers := table.number_range(column.name)):
        highest = _order(numbers[1])
        unit = min(EPOCHS, key=lambda item: abs(highest - _order(EPOCHS[item])))
        return (
            column,
            f'unit="{unit}"',
            f"TRY({column_sql}::HUGEINT {TO_MS[unit]})",
            f"{why}; numbers as large as {column.high} are counted in {unit} from 1970",
        )
    raise ProjectError(
        f"column {column.name!r} is {column.kind} and holds no instant; convert it to a timestamp "
        "in the table"
    )


def _order(number: float) -> int:
    return len(str(abs(int(number))))


def _label(table: Table, given: str, used: set[str]) -> tuple[TableColumn, str]:
    if given:
        column = table.columns[given]
        if column.name in used:
            raise ProjectError(f"column {given!r} cannot be the label and the entity or time too")
        return column, "given"
    for name in LABEL_NAMES:
        for column in table.columns.values():
            if feature_name(column.name) == name and column.distinct == 2:
                return column, f"its name is {column.name!r} and it has two values"
    raise ProjectError(
        f"no column of {table.path.name} is called {', '.join(LABEL_NAMES)} and has two values; "
        "name the label with --label"
    )


def _positive(table: Table, label: TableColumn, given: str) -> tuple[tuple[str, ...], str, str]:
    """Return the positive values for Labels, SQL of the label as BOOLEAN, and the reason."""
    column_sql, values = identifier(label.name), table.common_values(label.name)
    texts = [value for value, _ in values]
    if given:
        if given not in texts:
            raise ProjectError(
                f"the label {label.name!r} is never {given!r}; its values are "
                f"{', '.join(texts[:10])}"
            )
        chosen, why = given, "the positive value is given"
    elif len(texts) != 2:
        raise ProjectError(
            f"the label {label.name!r} has {label.distinct} different values "
            f"({', '.join(texts[:10])}); a label has two, or name the positive one with --positive"
        )
    else:
        known = [text for text in texts if text.lower() in POSITIVE_TEXTS]
        # The rarer value is usually the event to foresee.
        chosen = known[0] if len(known) == 1 else texts[-1]
        why = f"{chosen!r} counts as positive: " + (
            "it means yes" if len(known) == 1 else "it is the rarer value"
        )
    rows = dict(values)[chosen]
    share = rows / (table.rows - label.missing)
    reason = f"{why}, in {rows:,} rows ({share:.1%})"
    if label.kind == "BOOLEAN" or (label.is_number and {float(t) for t in texts} == {0.0, 1.0}):
        return (), f"{column_sql}::BOOLEAN", reason
    return (chosen,), f"{column_sql}::VARCHAR = {quoted(chosen)}", reason


def _features(
    table: Table, columns: Sequence[TableColumn], leaks: dict[str, str], entity: str
) -> tuple[list[GuessedFeature], list[LeftOut]]:
    features: list[GuessedFeature] = []
    left_out: list[LeftOut] = []
    taken = {entity, "event_time_ms", "created_ms"}
    for column in columns:
        against = _reason_against(table, column)
        if column.name in leaks:
            left_out.append(LeftOut(column.name, leaks[column.name], leaks=True))
        elif against:
            left_out.append(LeftOut(column.name, against))
        else:
            name = next(name for name in _spellings(feature_name(column.name)) if name not in taken)
            taken.add(name)
            features.append(_feature(table, column, name))
    return features, left_out


def _spellings(name: str) -> Iterator[str]:
    yield name
    for number in range(2, 10_000):
        yield f"{name[:58]}_{number}"


def _reason_against(table: Table, column: TableColumn) -> str:
    """Return why a column is no feature; empty if it can be one."""
    if column.distinct < 2:
        return "it has the same value in every row that has one"
    if column.is_instant:
        return "it is a date; write an age in days into the transform if it says something"
    if column.is_number and not table.number_range(column.name):
        return "none of its numbers is finite"
    if column.is_number or column.kind == "BOOLEAN":
        is_id = ENTITY_NAME.search(column.name) and column.distinct > 0.9 * table.rows
        return "it looks like another id" if is_id else ""
    if column.kind != "VARCHAR":
        return f"its type {column.kind} is no number and no text"
    if column.distinct > CATEGORIES_MAX:
        return f"it has {column.distinct:,} different texts, above {CATEGORIES_MAX}"
    return ""


def _feature(table: Table, column: TableColumn, name: str) -> GuessedFeature:
    # Numbers keep their values; the default of a row without one is neutral.
    column_sql = identifier(column.name)
    gaps = f"; {column.missing:,} rows have none" if column.missing else ""
    if column.kind == "BOOLEAN":
        return GuessedFeature(
            name, f"{column_sql}::DOUBLE", "default=0.0, bounds=(0.0, 1.0)", f"true is 1{gaps}"
        )
    if column.is_number:
        low, high, median = table.number_range(column.name)
        arguments = f"default={_number(median)}"
        reason = f"{_number(low)} to {_number(high)}; the default is the median{gaps}"
        if low >= 0 and high <= 1 and column.distinct > 2:
            arguments += ", bounds=(0.0, 1.0)"
            reason += "; the bounds are those of a share"
        elif low >= 0:
            arguments += ", bounds=(0.0, 3.4e38)"
            reason += "; it is never negative"
        return GuessedFeature(name, f"{column_sql}::DOUBLE", arguments, reason)
    # Texts that differ by blanks or capitals only are one category.
    values = table.common_values(column.name)
    spellings = [" ".join(value.split()).lower() for value, _ in values]
    is_mixed = len(set(spellings)) < len(spellings) or any(
        value != value.strip() for value, _ in values
    )
    sql = f"lower(trim({column_sql}))" if is_mixed else column_sql
    texts = [value.strip().lower() if is_mixed else value for value, _ in values]
    dictionary = tuple(dict.fromkeys(text for text in texts if text))
    reason = f"{len(dictionary)} different texts; the default is the most common{gaps}"
    if is_mixed:
        reason += "; spellings that differ by blanks or capitals are one"
    listed = ", ".join(python_text(text) for text in dictionary)
    comma = "," if len(dictionary) == 1 else ""
    arguments = f'dtype="category", dictionary=({listed}{comma}), default=0.0'
    return GuessedFeature(name, sql, arguments, reason)


def python_text(text: str) -> str:
    """Return *text* as Python source in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _number(value: float) -> str:
    return repr(round(value, 6))


def _check_times(table: Table, column: str, instant: str) -> None:
    """Raise ProjectError when times lie outside the years of TIMES_FROM_MS and TIMES_UNTIL_MS."""
    outside = table.rows_outside(column, instant, TIMES_FROM_MS, TIMES_UNTIL_MS)
    if outside:
        raise ProjectError(
            f"{outside:,} of {table.rows:,} rows of {table.path.name} have a {column!r} that is no "
            "time between 1990 and 2100, so it is no column of times or some of its rows are "
            "wrong; name another one with --time, or correct them"
        )


def _ttl(table: Table, entity: str, instant: str, now_ms: int) -> tuple[int, str]:
    """Return the days after which a row is stale, and why.

    The rows that a gateway would read now, which are the newest of each entity, stay fresh.
    """
    age_days = max(0, table.oldest_served_ms(entity, instant, now_ms)) // DAY_MS
    days = max(TTL_DAYS_MIN, 2 * (age_days + 1))
    if days == TTL_DAYS_MIN:
        return days, f"a month: the newest row of each {entity} is at most {age_days:,} days old"
    return days, (
        f"the newest row of a {entity} is up to {age_days:,} days old, and is stale in a shorter "
        "time; shorten it when newer rows come"
    )
