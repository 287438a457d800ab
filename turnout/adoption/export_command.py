"""`turnout versions export`: writes a version as a folder that another server reads."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from host.files import write_new_folder
from protos import registry_pb2
from turnout.cli import clients
from turnout.cli.arguments import Model, check_new_folder
from turnout.cli.context import CommandContext
from turnout.errors import UsageError
from turnout.views.terminal import terminal

if TYPE_CHECKING:
    from training.artifacts.serving_folder import Form


def export(
    ctx: typer.Context,
    model: Model,
    version: Annotated[str, typer.Argument(help="The version's label, or its id.")],
    out: Annotated[Path, typer.Option(help="New folder to write; nothing is overwritten.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="model.onnx alone.")] = False,
    mlflow: Annotated[
        bool, typer.Option("--mlflow", help="A model folder of MLflow, flavour onnx.")
    ] = False,
    triton: Annotated[
        bool, typer.Option("--triton", help="A model repository of Triton Inference Server.")
    ] = False,
) -> None:
    """Write a version as a folder that another server serves with the same scores.

    inputs.json in it says what each column of the input is, golden.npz has rows with their scores.
    """
    # Exactly one form, and a folder that is not there yet.
    forms: dict[Form, bool] = {"onnx": onnx, "mlflow": mlflow, "triton": triton}
    chosen = [form for form, wanted in forms.items() if wanted]
    if len(chosen) != 1:
        raise UsageError("give one of --onnx, --mlflow and --triton")
    check_new_folder("--out", out)
    # The files are verified against the id that the registry has.
    context: CommandContext = ctx.obj
    found, names = asyncio.run(_export(context, model, version, chosen[0], out))
    value = {"model": model, "version": found.label, "digest": found.digest, "out": str(out)}
    terminal(context.json).result(
        {**value, "form": chosen[0], "files": names},
        f"Wrote {model} {found.label} to {out}: {', '.join(names)}.",
    )


async def _export(
    context: CommandContext, model: str, version: str, form: "Form", out: Path
) -> tuple[registry_pb2.Version, list[str]]:
    """Write the folder; return the version and the paths of its files."""
    from registry import bundle
    from training.artifacts.serving_folder import serving_folder

    async with clients.open_registry(context) as client:
        found = await client.get_version(model, version)
        files = await client.fetch(model, found.label)
    verified = bundle.verify_bundle(files, trusted_key=None, expected_digest=found.digest)
    folder = serving_folder(form, verified, files["golden.npz"])
    write_new_folder(out, folder)
    return found, sorted(folder)
