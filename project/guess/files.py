"""Writes what was guessed as files of a project, with the reason beside each guess."""

import os
from pathlib import Path

from features.storage.database import identifier
from project.guess.columns import Guess, python_text

WIDTH = 100
HELD_OUT_ROWS_MIN = 50


def guessed_files(guess: Guess, source: Path, root: Path, owner: str) -> dict[str, str]:
    """Return path -> text of view, labels, recipe and model settings.

    source  the table's file, which is named relative to *root* if it lies below it.
    """
    location = _location(source, root)
    return {
        f"views/{guess.table}.py": _view(guess, location),
        f"labels/{guess.label_name}.py": _labels(guess, location),
        f"recipes/{guess.label_name}.py": _recipe(guess),
        f"models/{guess.label_name}.toml": _model(guess, owner),
    }


def _location(source: Path, root: Path) -> str:
    resolved, base = source.resolve(), root.resolve()
    return os.path.relpath(resolved, base) if resolved.is_relative_to(base) else str(resolved)


def _source(guess: Guess, location: str, *, created: bool) -> list[str]:
    time = python_text(guess.time)
    arguments = [python_text(location), f"time={time}"]
    arguments += [f"created={time}"] if created else []
    arguments += [guess.time_arguments] if guess.time_arguments else []
    return [
        f"    # {guess.time}: {guess.time_reason}.",
        *(["    # The table has no other time, so a row counts as known at its own."] * created),
        "    source=Source.files(",
        *(f"        {argument}," for argument in arguments),
        "    ),",
    ]


def _in_triple_quotes(sql: str) -> str:
    """Return SQL as it stands between triple quotes in Python source."""
    return sql.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')


def _view(guess: Guess, location: str) -> str:
    entity = identifier(guess.entity)
    columns = [f"{entity}::VARCHAR AS {guess.entity_name}", "event_time_ms", "created_ms"]
    columns += [f"{feature.sql} AS {identifier(feature.name)}" for feature in guess.features]
    selected = _in_triple_quotes(",\n            ".join(columns))
    leaks = [item for item in guess.left_out if item.leaks]
    others = [item for item in guess.left_out if not item.leaks]
    lines = [
        f'"""What is known about each {guess.entity_name}.',
        "",
        f"Guessed from {guess.rows:,} rows, with the reason beside each guess. Correct it.",
        '"""',
        "",
        "from turnout.define import Feature, Source, View",
        "",
    ]
    # What is not there is what a reader looks for first.
    if leaks:
        lines += ["# Left out, because they give the label away:"]
        lines += [f"#   {item.column}: {item.reason}" for item in leaks]
    if others:
        lines += ["# Left out:"]
        lines += [f"#   {item.column}: {item.reason}" for item in others]
    lines += [
        "",
        f"{guess.table} = View(",
        f'    name="{guess.table}",',
        f"    # {guess.entity}: {guess.entity_reason}.",
        f'    entities=("{guess.entity_name}",),',
        '    transform="""',
        "        SELECT",
        f"            {selected}",
        "        FROM source",
        '    """,',
        "    features=(",
    ]
    for feature in guess.features:
        lines += [
            f"        # {feature.reason}.",
            f'        Feature(name="{feature.name}", {feature.arguments}),',
        ]
    lines += [
        "    ),",
        f"    # {guess.ttl_reason[0].upper()}{guess.ttl_reason[1:]}.",
        f"    ttl_ms={guess.ttl_days} * 86_400_000,",
        *_source(guess, location, created=True),
        ")",
    ]
    return "\n".join(lines) + "\n"


def _labels(guess: Guess, location: str) -> str:
    entity, label = identifier(guess.entity), identifier(guess.label)
    positive = "".join(f"{python_text(value)}, " for value in guess.positive)
    value = f"{label}::VARCHAR" if guess.positive else label
    lines = [
        f'"""The outcomes that {guess.label_name} learns from. Guessed; correct it."""',
        "",
        "from turnout.define import Labels, Source",
        "",
        f"{guess.label_name} = Labels(",
        f'    name="{guess.label_name}",',
        f'    entities=("{guess.entity_name}",),',
        '    transform="""',
        "        SELECT",
        f"            {_in_triple_quotes(entity)}::VARCHAR AS {guess.entity_name},",
        "            event_time_ms,",
        f"            {_in_triple_quotes(value)} AS {guess.label_name}",
        "        FROM source",
        '    """,',
        f"    # {guess.label}: {guess.label_reason}.",
        f'    value="{guess.label_name}",',
        f"    positive=({positive.strip()}),",
        *_source(guess, location, created=False),
        ")",
    ]
    return "\n".join(lines) + "\n"


def _recipe(guess: Guess) -> str:
    held_out = max(HELD_OUT_ROWS_MIN, min(500, int(0.2 * guess.rows)))
    names = "\n".join(f'                "{feature.name}",' for feature in guess.features)
    return f'''"""What {guess.label_name} learns from: all of {guess.table}. Guessed; correct it."""

from labels.{guess.label_name} import {guess.label_name} as outcomes
from turnout.define import GateSettings, Learner, Recipe, ViewUse
from views.{guess.table} import {guess.table} as view

first = Recipe(
    model="{guess.label_name}",
    setting="first",
    features=(
        ViewUse(
            view=view,
            features=(
{names}
            ),
        ),
    ),
    label="{guess.label_name}",
    labels=outcomes,
    # A hundred small trees: they need no scaling and take values that are missing.
    learner=Learner(
        kind="boosting",
        parameters={{"max_iter": 100, "learning_rate": 0.06, "max_leaf_nodes": 8}},
    ),
    # A first version has to be clearly better than chance; raise it when you know what is possible.
    gate=GateSettings(auc_min=0.6, held_out_rows_min={held_out}),
)
'''


def _model(guess: Guess, owner: str) -> str:
    return f"""# Settings of the model {guess.label_name}. Guessed; correct them.
owner = {python_text(owner)}
purpose = "To foresee {guess.label_name} for each {guess.entity_name}."
tier = "experimental"
score_meaning = "Probability of {guess.label_name} after the instant of the call."
default_policy = "standard"

# How it is watched: docs/incidents.md of Turnout. Correct the horizon.
[monitoring.outcomes.{guess.label_name}]
positive_when = ">= 1"
horizon = "30d"
absent = "negative"
"""
