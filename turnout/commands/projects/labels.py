"""`turnout labels`: makes labels of a project from the outcomes that callers have reported."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from turnout.cli import clients
from turnout.cli.arguments import Model
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError, UsageError
from turnout.views.terminal import named_values, terminal

if TYPE_CHECKING:
    from features.contract import ModelContract
    from registry.client import RegistryClient
    from training.retrain.outcome_labels import OutcomeCounts, OutcomeRules

DATA_FOLDER = "data"
LABELS_FOLDER = "labels"

Horizon = Annotated[
    float,
    typer.Option(
        min=0.0,
        help="Days after a prediction until its outcome is final; a later outcome is none. "
        "Default: no bound.",
    ),
]
Journal = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a gateway, or of the journals of all hosts. Default: the running system's."
    ),
]

app = typer.Typer(help="Make labels from reported outcomes.", no_args_is_help=True)


@app.callback()
def labels() -> None:
    """Make labels from reported outcomes."""


@app.command("from-outcomes")
def from_outcomes(
    ctx: typer.Context,
    model: Model,
    outcome: Annotated[
        str, typer.Option(help="Name of the outcome, as callers report it: churned, accepted, ...")
    ],
    name: Annotated[
        str, typer.Option(help="Name of the labels. Default: made of model and outcome.")
    ] = "",
    horizon_days: Horizon = 0.0,
    absent: Annotated[
        str,
        typer.Option(
            help='What a prediction without an outcome means once its horizon is over: "unknown", '
            'or "no" where callers report only what happened.'
        ),
    ] = "unknown",
    journal: Journal = None,
) -> None:
    """Write labels of a model into the project: rows it has served, and what became of them.

    Of several reports about one row the last counts. Run it again for later outcomes: the file of
    the rows is replaced, and a declaration that is there stays.
    """
    from journal.served import read_outcomes, read_served_batches
    from training.retrain.outcome_labels import labels_name, write_outcome_labels

    # Check the options.
    context: CommandContext = ctx.obj
    root = context.required_project().root
    if absent not in ("unknown", "no"):
        raise UsageError(f'--absent {absent!r}: it is "unknown" or "no"')
    if absent == "no" and not horizon_days:
        raise UsageError("--absent no needs --horizon-days: before its end, an outcome may come")
    folder = journal or context.running_folder()
    if not folder.is_dir():
        raise OperatorError(f"there is no folder {folder}; name another with --journal")
    # Join outcomes and served rows.
    rules = asyncio.run(_rules(context, model, outcome, horizon_days, absent))
    name = name or labels_name(model, outcome)
    rows_file = root / DATA_FOLDER / f"{name}.parquet"
    counts = write_outcome_labels(
        rows_file, read_served_batches(folder), read_outcomes(folder), rules
    )
    # The declaration is the operator's once it is written.
    declared = root / LABELS_FOLDER / f"{name}.py"
    declared_before = _declare(declared, rules, name)
    _report(context, name, rows_file, declared, declared_before, counts)


async def _rules(
    context: CommandContext, model: str, outcome: str, horizon_days: float, absent: str
) -> "OutcomeRules":
    from training.retrain.outcome_labels import OutcomeRules

    async with clients.open_registry(context) as client:
        contracts = await _contracts(client, model)
    return OutcomeRules(
        model=model,
        outcome=outcome,
        contracts=contracts,
        horizon_days=horizon_days,
        absent_is_no=absent == "no",
    )


async def _contracts(client: "RegistryClient", model: str) -> "dict[str, ModelContract]":
    """Return model contract -> contract of the versions with the newest one's entities and inputs.

    OperatorError when the model has no version.
    """
    from features.contract import ModelContract

    # One version for each contract: several versions may have the same.
    newest_of = {item.model_contract: item for item in await client.list_versions(model)}
    if not newest_of:
        raise OperatorError(f"{model!r} has no version, so it has served nothing")
    newest = max(newest_of.values(), key=lambda item: item.created_unix_ms)
    contracts = {}
    for contract_hash, version in newest_of.items():
        files = await client.fetch(model, version.label)
        contracts[contract_hash] = ModelContract.from_definition(json.loads(files["contract.json"]))
    chosen = contracts[newest.model_contract]
    return {
        newest.model_contract: chosen,
        **{
            contract_hash: contract
            for contract_hash, contract in contracts.items()
            if contract.entities == chosen.entities and contract.inputs == chosen.inputs
        },
    }


def _declare(declared: Path, rules: "OutcomeRules", name: str) -> bool:
    """Write the declaration of the labels, unless it is there; return whether it was."""
    from training.retrain.outcome_labels import definition_file

    if declared.exists():
        return True
    declared.parent.mkdir(parents=True, exist_ok=True)
    text = definition_file(rules, name, f"{DATA_FOLDER}/{name}.parquet")
    declared.write_text(text, encoding="utf-8")
    return False


def _report(
    context: CommandContext,
    name: str,
    rows_file: Path,
    declared: Path,
    declared_before: bool,
    counts: "OutcomeCounts",
) -> None:
    """Print what was written, and what became of each report."""
    # Scripts get the counts by name, people in words.
    screen = terminal(context.json)
    value = {"name": name, "rows": str(rows_file), "declared": str(declared), **asdict(counts)}
    shown = {
        "labels": f"{counts.labels:,}, of which {counts.positives:,} are not 0",
        "rows": str(rows_file),
        "declaration": f"{declared}{' (as it was)' if declared_before else ''}",
        "reports": f"{counts.reports:,}",
        "replaced by later ones": f"{counts.replaced:,}",
        "without a served row": f"{counts.unmatched:,}",
        "after the horizon": f"{counts.late:,}",
        "labels 0 without an outcome": f"{counts.absent:,}",
        "waiting for their horizon": f"{counts.waiting:,}",
    }
    screen.result(value, named_values(shown))
    # What the counts mean, and what comes next.
    if counts.unmatched:
        screen.note(
            f"{counts.unmatched:,} reports have no served row here: their journals were deleted, "
            "or lie on other hosts. Name a folder with all of them with --journal"
        )
    screen.hint(
        f"Next: `from labels.{name} import {name}` and labels={name} in a recipe below recipes/"
    )
