"""The option that says whether files of others are opened in a sandbox, as every command has it."""

from typing import TYPE_CHECKING, Annotated

import typer

from turnout.errors import OperatorError

if TYPE_CHECKING:
    from host.sandbox.run import Isolation

WithoutSandbox = Annotated[
    bool,
    typer.Option(
        "--without-sandbox", help="Run the file's code as yourself: only if you trust it."
    ),
]


def chosen_isolation(*, without_sandbox: bool) -> "Isolation":
    """Return how children are isolated. OperatorError when this host has no sandbox."""
    from host.sandbox.run import Isolation, NoSandboxError, choose_isolation

    if without_sandbox:
        return Isolation.NONE
    try:
        return choose_isolation()
    except NoSandboxError as error:
        raise OperatorError(
            f"{error}; or use --without-sandbox if you trust the source of the file"
        ) from error
