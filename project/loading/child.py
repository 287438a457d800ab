"""Loads the Python files of a project, and reports what each one declares.

It runs as `python -P -m project.loading.child` with limits on memory and CPU time. Each line of its
report is JSON: {"ready": true} once, then {"doing": FILE} and {"done": FILE, "declared": [...],
"problem": {...} or null} for each file. Files that import each other are nested. What a file prints
comes as {"printed": TEXT}.

On SIGTERM, and when it crashes or has used its CPU time, it writes a traceback of
`faulthandler` to another descriptor before it ends, whatever the file is in the middle of. SIGPROF
ends it when one file has used up its own share.
"""

import argparse
import ast
import faulthandler
import importlib
import io
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from features.canonical import canonical_json
from features.views import View
from host.child_process import ResourceLimits, confine
from project.definitions import view_entry
from project.folder import CODE_FOLDERS
from project.loading.guard import install_guard
from project.model_settings import Model
from training.labels import Labels
from training.recipe import Recipe

IMPORTABLE = (*CODE_FOLDERS, "lib")
"""Folders of the project that its files import from, such as `from views.usage import usage`."""
NICE = 5
TEXT_MAX = 2_000


Declared = View | Labels | Recipe | Model
"""What a file may declare."""


class BrokenImportError(Exception):
    """A file imports another file of the project, which could not be loaded."""


class ProjectFinder(MetaPathFinder):
    """Finds modules below IMPORTABLE in the project, before any installed package."""

    def __init__(self, root: Path, loads: "Loads") -> None:
        self._root = root
        self._loads = loads

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return how the module is loaded; None when the project does not have it."""
        del path, target
        parts = fullname.split(".")
        if parts[0] not in IMPORTABLE:
            return None
        # A file is found before a folder of the same name, and a link must stay in the project.
        base = self._root.joinpath(*parts)
        file = base.with_name(base.name + ".py")
        if not base.resolve().is_relative_to(self._root):
            raise ImportError(f"{'/'.join(parts)} is a symbolic link out of the project")
        if file.is_file():
            if not file.resolve().is_relative_to(self._root):
                raise ImportError(f"{'/'.join(parts)}.py is a symbolic link out of the project")
            return spec_from_file_location(
                fullname, file, loader=ProjectLoader(fullname, file, self._root, self._loads)
            )
        # Folders need no __init__.py.
        init = base / "__init__.py"
        if init.is_file():
            return spec_from_file_location(
                fullname,
                init,
                loader=ProjectLoader(fullname, init, self._root, self._loads),
                submodule_search_locations=[str(base)],
            )
        if base.is_dir():
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(base)]
            return spec
        return None


class Loads:
    """What was loaded so far, and the report of it."""

    def __init__(self, report_fd: int, broken: Iterable[str], file_cpu_s: float) -> None:
        self._report_fd = report_fd
        self._file_cpu_s = file_cpu_s
        self.broken = set(broken)
        """Files that failed, or in which an earlier child ended."""
        self._reported: dict[int, object] = {}
        # Objects are known by their identity, which is theirs as long as they are kept here.

    def report(self, **line: object) -> None:
        """Write one line."""
        os.write(self._report_fd, json.dumps(line).encode() + b"\n")

    @contextmanager
    def cpu_bound(self) -> Iterator[None]:
        """End the process by SIGPROF when the code inside has used the CPU time of one file.

        The time of a file that is imported inside does not count.
        """
        left, _ = signal.setitimer(signal.ITIMER_PROF, self._file_cpu_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, left)

    def declared_in(self, module: ModuleType, path: Path) -> list[dict[str, Any]]:
        """Return what *module*, the file *path*, declares and no module before it did."""
        declared = []
        for name, value in list(vars(module).items()):
            for item in value if isinstance(value, list | tuple) else (value,):
                if isinstance(item, Declared) and id(item) not in self._reported:
                    self._reported[id(item)] = item
                    line = assignment_lines(path).get(name, 0)
                    declared.append({**declaration_of(item), "line": line})
        canonical_json(declared)  # an object or NaN among a learner's parameters raises here
        return declared


class PrintedText(io.TextIOBase):
    """Takes what files print, which must not be taken for the answer of a command.

    The process may write no file, so the standard error that it inherits cannot be written to
    where that is a file, such as the log of a CI job.
    """

    def __init__(self, loads: Loads) -> None:
        self._loads = loads

    def writable(self) -> bool:
        """Return True, as print needs a text stream to be writable."""
        return True

    def write(self, text: str) -> int:
        """Report *text*; return its length."""
        self._loads.report(printed=text)
        return len(text)


class ProjectLoader(SourceFileLoader):
    """Runs one file of the project and reports it."""

    def __init__(self, fullname: str, path: Path, root: Path, loads: Loads) -> None:
        super().__init__(fullname, str(path))
        self._root = root
        self._shown = path.relative_to(root).as_posix()
        self._loads = loads

    def exec_module(self, module: ModuleType) -> None:
        """Run the file. Whatever it raises is reported and becomes a BrokenImportError."""
        shown, loads = self._shown, self._loads
        if shown in loads.broken:
            raise BrokenImportError(shown)
        loads.report(doing=shown)
        try:
            with loads.cpu_bound():
                super().exec_module(module)
                # What stands below lib is declared by the file that imports it from there.
                declares = shown.startswith(tuple(f"{name}/" for name in CODE_FOLDERS))
                declared = loads.declared_in(module, self._root / shown) if declares else []
        except BaseException as error:
            # SystemExit too: a file that ends the interpreter is broken like any other.
            loads.broken.add(shown)
            loads.report(done=shown, declared=[], problem=problem_of(error, self._root, shown))
            raise BrokenImportError(shown) from error
        loads.report(done=shown, declared=declared, problem=None)


def assignment_lines(path: Path) -> dict[str, int]:
    """Return name -> the line of its last assignment at the top of a Python file."""
    tree = ast.parse(path.read_bytes())
    return {
        target.id: node.lineno
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }


def declaration_of(item: View | Labels | Recipe | Model) -> dict[str, Any]:
    """Return a declared object as JSON values."""
    if isinstance(item, View):
        return {"kind": "view", "name": item.name, "definition": view_entry(item)}
    if isinstance(item, Recipe):
        name = f"{item.model}/{item.setting}"
        return {"kind": "recipe", "name": name, "definition": item.definition()}
    kind = "model" if isinstance(item, Model) else "labels"
    return {"kind": kind, "name": item.name, "definition": item.definition()}


def problem_of(error: BaseException, root: Path, shown: str) -> dict[str, Any]:
    """Return the line of *shown* at which *error* was raised, and what it says."""
    if isinstance(error, BrokenImportError):
        line = _line_in(error, root / shown)
        return {"line": line, "text": f"it imports {error}, which is broken"}
    if isinstance(error, SyntaxError) and error.filename == str(root / shown):
        return {"line": error.lineno or 0, "text": f"SyntaxError: {error.msg}"}
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SystemExit):
        text = f"it ends the interpreter ({error!r}); a file only declares, so leave that out"
    if isinstance(error, MemoryError):
        megabytes = resource.getrlimit(resource.RLIMIT_AS)[0] // 2**20
        text = (
            f"MemoryError: the files of a project may use {megabytes} MiB together; a file only "
            "declares, so let the view's transform or a source's file hold the data"
        )
    if isinstance(error, ModuleNotFoundError) and error.name:
        text += _way_out(error.name, root)
    return {"line": _line_in(error, root / shown), "text": text[:TEXT_MAX]}


def _way_out(name: str, root: Path) -> str:
    """Return what to do about a module that is not found."""
    first = name.split(".")[0]
    if first in IMPORTABLE:
        return f"; the project has no file {name.replace('.', '/')}.py"
    if (root / first).exists() or (root / f"{first}.py").exists():
        return (
            f"; the project's {first} is not importable: files import from {', '.join(IMPORTABLE)} "
            "of the project, so move it below lib/"
        )
    return ""


def _line_in(error: BaseException, path: Path) -> int:
    """Return the last line of *path* in the traceback; 0 when there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames) if frame.filename == str(path)), 0)


def main() -> None:
    """Load every named file, and end the process."""
    parser = argparse.ArgumentParser(prog="python -m project.loading.child", description=__doc__)
    for name in ("parent", "memory-mb", "cpu-s", "report-fd", "trace-fd"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--file-cpu-s", type=float, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--broken", action="append", default=[])
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    # What a library writes past Python must not be taken for the answer of a command either.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    confine(ResourceLimits(memory_mb=options.memory_mb, cpu_s=options.cpu_s), options.parent, NICE)
    # Python's own signal handlers wait for the next bytecode, these do not.
    faulthandler.enable(options.trace_fd)
    for ending in (signal.SIGTERM, signal.SIGXCPU, signal.SIGPROF):
        faulthandler.register(ending, options.trace_fd, chain=True)
    # From here on the project's own code runs. Its folders come last, so that none hides a room.
    sys.dont_write_bytecode = True
    loads = Loads(options.report_fd, options.broken, options.file_cpu_s)
    sys.meta_path.insert(0, ProjectFinder(options.root, loads))
    loads.report(ready=True)
    sys.stdout = sys.stderr = PrintedText(loads)
    install_guard()
    for file in options.files:
        try:
            importlib.import_module(file.removesuffix(".py").replace("/", "."))
        except BrokenImportError:
            continue  # it is reported
    loads.report(end=True)
    os._exit(0)  # no exit handler that a file may have left behind must run


if __name__ == "__main__":
    main()
