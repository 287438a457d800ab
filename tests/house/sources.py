"""The hand-written Python files of this repository, each parsed once, and what the rules read."""

import ast
import gc
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

BOTTOM = {"host", "protos", "stats", "access", "journal"}
MIDDLE = BOTTOM | {"features", "registry"}

CLIENT = {"turnout_client"}

MAY_IMPORT: dict[str, set[str]] = {
    "host": set(),
    "protos": {"host"},
    "stats": {"host"},
    "access": {"host", "protos"},
    "journal": {"host", "protos"},
    "features": BOTTOM,
    "registry": BOTTOM | {"features"},
    "training": MIDDLE,
    "gateway": MIDDLE,
    "rollout": MIDDLE,
    "monitoring": MIDDLE,
    "console": MIDDLE | {"training", "gateway", "rollout", "monitoring"},
    "project": MIDDLE | {"training", "rollout"},
    "turnout": MIDDLE
    | {"project", "training", "gateway", "rollout", "monitoring", "console"}
    | CLIENT,
    "turnout_client": set(),
}
"""Each room, and the rooms that it may import. Rooms that are only planned are listed too."""

ROOMS = tuple(room for room in MAY_IMPORT if (REPOSITORY / room / "__init__.py").exists())

CLIENT_FOLDER = "clients/python/src/turnout_client"
"""The package for callers. It is no room: it has a wheel of its own, for Python 3.9 and newer."""

FOLDERS = {**{room: room for room in ROOMS}, "turnout_client": CLIENT_FOLDER}
"""The folder of each package that this repository packs, by import name."""

EXAMPLES = "examples"
"""Projects as an operator has them. They import `turnout.define` of this repository, no more."""

PACKED = (*ROOMS, CLIENT_FOLDER)
EVERYWHERE = (*PACKED, "benchmarks", EXAMPLES, "tests")
"""All folders with hand-written Python files."""

RUST_CRATES = ("ingress", "benchmarks/loadgen")
RUST_FILES = sorted(
    path
    for crate in RUST_CRATES
    for path in (REPOSITORY / crate).rglob("*.rs")
    if "target" not in path.parts
)

BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""The fields in which a statement contains other statements."""

COMMENT = re.compile(r"(?:^|\s)#(?! noqa| type:| fmt:)")

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
DEFINITIONS = FUNCTIONS | ast.ClassDef


@dataclass
class Definition:
    """A function or a class, as the rules see it. Lines are counted from 1."""

    name: str
    first_line: int
    last_line: int
    is_class: bool
    owner: str
    """Names of the classes and functions around it, joined by dots. Empty at the top."""
    bases: tuple[str, ...]
    decorators: tuple[str, ...]


@dataclass
class SourceFile:
    """What the rules read of one file."""

    folder: str
    path: Path
    text: str
    imports: list[tuple[int, str]] = field(default_factory=list)
    """(line, dotted name); `from a import b` gives `a.b`."""
    definitions: list[Definition] = field(default_factory=list)
    docstrings: list[tuple[int, str]] = field(default_factory=list)
    names: list[tuple[int, str]] = field(default_factory=list)
    """(line, name) of public functions, classes, methods, fields and module constants."""
    statements: int = 0
    """Statements at the top of the file; its docstring is one."""

    @property
    def shown(self) -> str:
        """The path below the repository, with slashes."""
        return self.path.relative_to(REPOSITORY).as_posix()

    @property
    def module(self) -> str:
        """The dotted name by which the file is imported."""
        name = self.shown.removeprefix("clients/python/src/").removesuffix(".py")
        return name.replace("/", ".").removesuffix(".__init__")

    @property
    def area(self) -> str:
        """What is counted together: a room, `clients`, `benchmarks`, or a folder of `tests`."""
        room, *folders, _ = self.shown.split("/")
        return f"{room}/{folders[0]}" if room == "tests" and folders else room

    @property
    def lines(self) -> list[str]:
        """The lines of the file without their ends."""
        return self.text.splitlines()

    def comments(self, definition: Definition) -> int:
        """Count the lines of *definition* that have a `#` comment."""
        span = self.lines[definition.first_line - 1 : definition.last_line]
        return sum(1 for line in span if COMMENT.search(line))


@cache
def source_files(*folders: str) -> tuple[SourceFile, ...]:
    """Return every hand-written .py file below *folders*, in a fixed order."""
    return tuple(
        _source_file(folder, path)
        for folder in folders
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        if "_pb2" not in path.name
    )


@cache
def _source_file(folder: str, path: Path) -> SourceFile:
    """Parse one file. The tree is not kept: 60,000 lines of trees would slow every collection."""
    file = SourceFile(folder, path, path.read_text(encoding="utf-8"))
    collected = gc.isenabled()
    gc.disable()
    try:
        tree = ast.parse(file.text, filename=str(path))
        file.statements = len(tree.body)
        _read(file, tree, "", public=True)
        del tree
    finally:
        if collected:
            gc.enable()
    return file


def _read(file: SourceFile, node: ast.AST, owner: str, *, public: bool) -> None:
    """Add what *node* contains to *file*. *public* is False inside functions."""
    body = getattr(node, "body", [])
    named = isinstance(node, ast.Module | ast.ClassDef)
    for before, statement in zip([None, *body], body, strict=False):
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            # A string is a docstring at the start of a definition or after a constant or field.
            documents = before is None or (named and isinstance(before, ast.Assign | ast.AnnAssign))
            if isinstance(statement.value.value, str) and documents:
                file.docstrings.append((statement.lineno, statement.value.value.strip()))
    for block in BLOCKS:
        for statement in getattr(node, block, ()):
            _read_statement(file, statement, owner, named=named, public=public)


def _read_statement(
    file: SourceFile, statement: ast.AST, owner: str, *, named: bool, public: bool
) -> None:
    match statement:
        case ast.Import(lineno=line, names=aliases):
            file.imports += [(line, alias.name) for alias in aliases]
        case ast.ImportFrom(lineno=line, names=aliases, module=module, level=level):
            start = "." * level + (module or "")
            file.imports += [(line, f"{start}.{alias.name}") for alias in aliases]
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            _read_definition(file, statement, owner, public=public)
        case ast.Assign(targets=targets):
            _read_targets(file, targets, named=named, public=public)
        case ast.AnnAssign(target=target):
            _read_targets(file, [target], named=named, public=public)
        case ast.Expr():
            pass
        case _:
            _read(file, statement, owner, public=public)


def _read_definition(file: SourceFile, node: DEFINITIONS, owner: str, *, public: bool) -> None:
    is_class = isinstance(node, ast.ClassDef)
    file.definitions.append(
        Definition(
            node.name,
            node.lineno,
            node.end_lineno or node.lineno,
            is_class,
            owner,
            tuple(ast.unparse(base) for base in getattr(node, "bases", ())),
            tuple(ast.unparse(decorator) for decorator in node.decorator_list),
        )
    )
    within = f"{owner}.{node.name}" if owner else node.name
    if node.name == "__init__":
        # Its own names are local, but the fields that it sets belong to the class.
        _read(file, node, within, public=public)
        return
    public = public and not node.name.startswith("_")
    if public:
        file.names.append((node.lineno, node.name))
    _read(file, node, within, public=public and is_class)


def _read_targets(file: SourceFile, targets: list[ast.expr], *, named: bool, public: bool) -> None:
    """Add the public names that an assignment makes: constants, class fields and `self.x`."""
    for target in targets:
        match target:
            case ast.Name(id=name, lineno=line) if named and public and name[0] != "_":
                file.names.append((line, name))
            case ast.Attribute(value=ast.Name(id="self"), attr=name, lineno=line):
                if public and not name.startswith("_"):
                    file.names.append((line, name))


@cache
def modules_by_name() -> dict[str, SourceFile]:
    """Return every hand-written file by its dotted name."""
    return {file.module: file for file in source_files(*EVERYWHERE)}


def imported_modules(file: SourceFile) -> Iterator[tuple[int, SourceFile]]:
    """Yield (line, file) of the hand-written modules that *file* imports."""
    known = modules_by_name()
    for line, name in file.imports:
        longest = name
        while longest and longest not in known:
            longest = longest.rpartition(".")[0]
        if longest and known[longest] is not file:
            yield line, known[longest]


def fail_on_breaches(breaches: list[str]) -> None:
    """Fail with one breach a line, so that an editor can open each."""
    if breaches:
        pytest.fail("\n".join([f"{len(breaches)} breaches:", *breaches]), pytrace=False)


DOCSTRING_CHARS_MIN = 15
SUBJECTLESS = re.compile(r"(?:Who|Whose|Of|The same|Likewise|See)\b")


def docstring_fault(text: str) -> str:
    """Return what is wrong with a docstring and how to mend it, or an empty text."""
    if len(text) < DOCSTRING_CHARS_MIN:
        return (
            f"a docstring below {DOCSTRING_CHARS_MIN} characters only repeats the name; delete it, "
            "or give shape, dtype, unit, errors or the source of the number"
        )
    if found := SUBJECTLESS.match(text):
        return f"begins with {found[0]!r}; write a sentence with a subject and a verb"
    return ""
