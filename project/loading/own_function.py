"""Gives a recipe the author's own function, whose name is all that its definition has."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module, invalidate_caches
from pathlib import Path

from features.canonical import sha256_hex
from project.errors import ProjectError
from project.folder import CODE_FOLDERS
from training.recipe import Recipe

FOLDERS = (*CODE_FOLDERS, "lib")


@contextmanager
def with_own_function(recipe: Recipe, root: Path) -> Iterator[Recipe]:
    """Yield *recipe* with the function that its learner names; any other recipe as it is.

    root  the project's folder. The function's file may import others below views, labels, recipes,
          models and lib, until the context ends.

    The file runs in this process, with the rights of whoever trains. Raises ProjectError when it is
    not there, is another one than the definition was made from, or cannot be imported.
    """
    if recipe.learner.kind != "function" or recipe.learner.fit is not None:
        yield recipe
        return
    # The file must be the one that the recipe was declared with.
    named = str(recipe.learner.parameters["function"])
    module, _, name = named.partition(":")
    _check_file(module, root, named, str(recipe.learner.parameters.get("source_sha256")))
    # Import it with the project's folders at hand, and leave nothing of them behind.
    before = set(sys.modules)
    sys.path.append(str(root))
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        invalidate_caches()
        try:
            function = getattr(import_module(module), name)
        except Exception as error:
            raise ProjectError(
                f"the function {named} of recipe {recipe.model}/{recipe.setting} cannot be "
                f"imported: {type(error).__name__}: {error}"
            ) from error
        yield replace(recipe, learner=replace(recipe.learner, fit=function))
    finally:
        sys.path.remove(str(root))
        sys.dont_write_bytecode = writes_bytecode
        # Another project may have modules of the same names.
        for item in set(sys.modules) - before:
            if item.split(".")[0] in FOLDERS:
                del sys.modules[item]


def _check_file(module: str, root: Path, named: str, source_sha256: str) -> None:
    """Raise ProjectError unless the module's file is in the project and is the one declared."""
    file = root.joinpath(*module.split(".")).with_suffix(".py")
    inside = module.split(".")[0] in FOLDERS and file.resolve().is_relative_to(root.resolve())
    if not inside or not file.is_file():
        raise ProjectError(
            f"the function {named} is in no file of the project; write it in a file below "
            f"{', '.join(FOLDERS)}"
        )
    if sha256_hex(file.read_bytes()) != source_sha256:
        raise ProjectError(
            f"{file.relative_to(root)} was changed since the recipe with its function {named} was "
            "applied; run `turnout plan` and `turnout apply` first, or go back to the commit of "
            "that recipe"
        )
