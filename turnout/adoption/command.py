"""`turnout adopt`: brings a model of another tool into the registry, as a version of its own.

ONNX, DuckDB and gRPC take long to import, so the command imports what it needs by itself.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from host.files import replace_file
from registry.types import MODEL_NAME
from turnout.adoption.report import report
from turnout.cli.arguments import Model, check_new_folder
from turnout.cli.clients import open_registry
from turnout.cli.context import CommandContext
from turnout.cli.isolation import WithoutSandbox, chosen_isolation
from turnout.errors import NotReachableError, OperatorError, UsageError
from turnout.views.terminal import terminal

if TYPE_CHECKING:
    from host.sandbox.run import Isolation
    from protos import registry_pb2
    from training.adopted.proposals import AnswerProposal, KnownFeature
    from training.adoption.foreign import ForeignModel
    from turnout.adoption.adoption_run import AdoptedVersion, AdoptionOrder, Open


ForeignFile = Annotated[
    Path,
    typer.Argument(
        help="ONNX; pickle, joblib or skops; LightGBM text, XGBoost JSON or UBJ, CatBoost cbm; "
        "or the folder of an MLflow model."
    ),
]
SampleFile = Annotated[
    Path | None,
    typer.Option(
        help="Rows of the model's columns: Parquet, CSV or JSON lines. Default: the newest rows of "
        "the views that it reads, or made-up rows."
    ),
]
Label = Annotated[str, typer.Option(help="Column of the sample with the outcomes, for metrics.")]
Views = Annotated[
    list[str] | None,
    typer.Option(help="View that columns may come from; may be repeated. Default: every one."),
]
AnswerOptions = Annotated[
    list[str] | None,
    typer.Option(help="KEY=VALUE, a line of the answers file; may be repeated."),
]
AnswersFile = Annotated[
    Path | None,
    typer.Option(
        help="The answers file. Default: models/MODEL.adopt.toml of the project, or "
        "MODEL.adopt.toml beside the foreign file."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Take every proposal without a question.")]
OutFolder = Annotated[Path | None, typer.Option(help="New folder to write the version to.")]
Register = Annotated[bool, typer.Option("--register/--no-register", help="Register the version.")]
Try = Annotated[
    bool,
    typer.Option("--try", help="In a development system: approve, deploy and ask it once, too."),
]
Approver = Annotated[
    str, typer.Option(help="Name that approves with --try: another person than you.")
]


def adopt(
    ctx: typer.Context,
    model: Model,
    file: ForeignFile,
    sample: SampleFile = None,
    label: Label = "",
    view: Views = None,
    answer: AnswerOptions = None,
    answers: AnswersFile = None,
    yes: Yes = False,
    out: OutFolder = None,
    register: Register = True,
    try_it: Try = False,
    approver: Approver = "approver",
    without_sandbox: WithoutSandbox = False,
) -> None:
    """Make a version of a model that another tool trained, prove it, and register it.

    What the file does not say is asked, and kept in the answers file: the next time asks nothing.
    """
    from turnout.adoption.adoption_run import adopt_file

    context: CommandContext = ctx.obj
    began = time.monotonic()
    _check_options(model, file, label, sample, out, register=register, try_it=try_it)
    # What the file takes and gives, as its own library tells it in the sandbox.
    screen = terminal(context.json)
    isolation = chosen_isolation(without_sandbox=without_sandbox)
    open_file = _opener(context, isolation)
    foreign = open_file(file, {})
    for warning in foreign.warnings:
        screen.note(f"warning: {warning}")
    # Which features it reads, which class is positive: answers, then questions.
    known = asyncio.run(_known_features(context, view or []))
    kept = answers or _answers_path(context, model, file)
    proposal = _complete(context, foreign, known, kept, answer or [], by_order=bool(view), yes=yes)
    _keep_answers(proposal, kept, model, file)
    # The version: adapted, certified, and measured on the sample.
    order = _order(context, model, file, known, isolation, sample, label)
    adopted = adopt_file(
        order, foreign, proposal.answers, open_file, lambda step: screen.hint(f"{step} ...")
    )
    version = asyncio.run(_store(context, model, adopted, out, register=register))
    # A first prediction, if it is wanted.
    tried = None
    if try_it and version is not None:
        from turnout.adoption.first_prediction import try_version

        tried = try_version(ctx, context, version, adopted, approver)
    seconds = time.monotonic() - began
    report(context, model, adopted, version, kept=kept, out=out, tried=tried, seconds=seconds)


def _check_options(
    model: str,
    file: Path,
    label: str,
    sample: Path | None,
    out: Path | None,
    *,
    register: bool,
    try_it: bool,
) -> None:
    """Refuse options that contradict each other, before anything is opened."""
    if not MODEL_NAME.fullmatch(model):
        raise UsageError(f"the name of a model must match {MODEL_NAME.pattern}; {model!r} does not")
    if not file.exists():
        raise UsageError(f"{file} does not exist; name the model's file, or the folder of MLflow")
    if label and sample is None:
        raise UsageError("--label names a column of the sample; give --sample FILE")
    if sample is not None and not sample.is_file():
        raise UsageError(f"--sample {sample} is no file; give Parquet, CSV or JSON lines")
    check_new_folder("--out", out)
    if not register and out is None:
        raise UsageError("--no-register needs --out FOLDER, or the version would be lost")
    if try_it and not register:
        raise UsageError("--try deploys a registered version; leave --no-register out")


def _opener(context: CommandContext, isolation: "Isolation") -> "Open":
    from training.adoption.open_foreign import open_foreign

    screen = terminal(context.json)

    def open_file(path: Path, sample: Any) -> "ForeignModel":  # noqa: ANN401  a Sample
        return open_foreign(
            path,
            sample,
            isolation=isolation,
            progress=lambda step: screen.hint(f"{step} ..."),
        )

    return open_file


async def _known_features(context: CommandContext, views: list[str]) -> "list[KnownFeature]":
    """Return the features of the chosen views, or else of all; those of the project win."""
    from training.adopted.proposals import KnownFeature
    from turnout.cli.known_views import known_views

    try:
        editions = await known_views(context)
    except NotReachableError:
        editions = []
    chosen = {item.view.name: item.view for item in reversed(editions)}
    chosen |= {item.view.name: item.view for item in editions if item.in_project}
    unknown = [name for name in views if name not in chosen]
    if unknown:
        raise UsageError(f"no view is called {unknown[0]!r}; there are {sorted(chosen)}")
    return [
        KnownFeature(chosen[name], feature)
        for name in views or chosen
        for feature in chosen[name].features
    ]


def _answers_path(context: CommandContext, model: str, file: Path) -> Path:
    from project.model_settings import ANSWERS_SUFFIX

    if context.project is None:
        return file.absolute().parent / f"{model}{ANSWERS_SUFFIX}"
    return context.project.root / "models" / f"{model}{ANSWERS_SUFFIX}"


def _complete(
    context: CommandContext,
    foreign: "ForeignModel",
    known: "list[KnownFeature]",
    kept: Path,
    options: list[str],
    *,
    by_order: bool,
    yes: bool,
) -> "AnswerProposal":
    """Return complete answers: those of the file and of options, then those to questions."""
    from training.adopted.answers import merged_answers, parse_option, read_answers
    from training.adopted.proposals import propose
    from turnout.adoption.questions import ask_open_questions, open_questions_error

    text = kept.read_text(encoding="utf-8") if kept.is_file() else ""
    given = merged_answers(read_answers(text, str(kept)), *map(parse_option, options))
    proposal = propose(foreign, known, given, by_order=by_order)
    if yes or not proposal.questions:
        return proposal
    if context.json or not sys.stdin.isatty():
        raise open_questions_error(proposal, str(kept))
    return ask_open_questions(
        lambda answered: propose(foreign, known, answered, by_order=by_order), given
    )


def _keep_answers(proposal: "AnswerProposal", kept: Path, model: str, file: Path) -> None:
    """Write the answers unless the file has the same. A file that is right keeps its comments."""
    from training.adopted.answers import answers_toml, read_answers

    definition = proposal.answers.definition()
    if kept.is_file():
        known = read_answers(kept.read_text(encoding="utf-8"), str(kept))
        if {**known, "file": ""} == {**definition, "file": ""}:
            return
    kept.parent.mkdir(parents=True, exist_ok=True)
    replace_file(kept, answers_toml(proposal.answers, model=model, file=file.name).encode())


def _order(
    context: CommandContext,
    model: str,
    file: Path,
    known: "list[KnownFeature]",
    isolation: "Isolation",
    sample: Path | None,
    label: str,
) -> "AdoptionOrder":
    from host.git import commit_of
    from turnout.adoption.adoption_run import AdoptionOrder

    return AdoptionOrder(
        model=model,
        file=file,
        known=known,
        sample=sample,
        label=label,
        offline=context.offline_folder(),
        isolation=isolation,
        commit="unknown" if context.project is None else commit_of(context.project.root),
    )


async def _store(
    context: CommandContext,
    model: str,
    adopted: "AdoptedVersion",
    out: Path | None,
    *,
    register: bool,
) -> "registry_pb2.Version | None":
    """Write the sealed version to *out*, and register it; None when it was only written."""
    from registry import bundle

    # The person that adopts is the author.
    sealed = bundle.seal_files(
        adopted.files,
        model=model,
        author=context.actor,
        created_unix_ms=time.time_ns() // 1_000_000,
    )
    if out is not None:
        bundle.write_version_folder(out, sealed)
    if not register:
        return None
    # Without a registry the work need not be lost.
    try:
        async with open_registry(context) as client:
            return await client.register(model, sealed)
    except NotReachableError as error:
        if out is not None:
            raise OperatorError(
                f"{error}. The version is in {out}: register it with `turnout versions register "
                f"{model} {out}`"
            ) from error
        raise NotReachableError(f"{error}; or give --no-register --out FOLDER") from error
