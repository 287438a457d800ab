"""Loads a project: its Python files in a child process, its TOML files here.

A file that is broken, loops, forks or crashes is named, and the others are still looked at: when
the child ends in the middle of a file, another child takes the rest.
"""

import asyncio
import json
import os
import re
import signal
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from host.child_process import ChildProcess, ResourceLimits, describe_exit
from project.definitions import SECTIONS, ProjectDefinitions, parse_definitions
from project.errors import Problem, ProjectError
from project.folder import CODE_FOLDERS, ProjectFolder, files_below
from project.loading.leakage import leaks
from project.model_settings import check_monitoring_names, read_model_settings
from project.policies import BUILT_IN, read_policies
from project.schedules import FILE as SCHEDULES_FILE
from project.schedules import read_schedules

MODULE_PATH = re.compile(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*\.py", re.ASCII)
REPORT_LINE_BYTES_MAX = 64 * 1024 * 1024
CHILDREN_MAX = 8
"""Children of one load. Each but the last named a file that ended it."""
SECTION_OF = {"view": "views", "labels": "labels", "recipe": "recipes", "model": "models"}
TRACE_S = 2.0
"""Time in which a child that is told to end writes at which line it was."""
TRACE_BYTES_MAX = 1024 * 1024
TRACE_FRAME = re.compile(rb'^  File "(.*)", line (\d+) in ', re.MULTILINE)
"""A frame in a traceback of faulthandler, the innermost first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLimits:
    """Bounds on the child that runs a project's files.

    start_s     from its start to its first file.
    file_cpu_s  CPU time of each file, without the files that it imports.
    file_s      for each file from start to end. A file that waits uses no CPU time, and a busy
                machine takes long over little, so this bound is generous.
    """

    resources: ResourceLimits = field(
        default_factory=lambda: ResourceLimits(memory_mb=2_048, cpu_s=60)
    )
    start_s: float = 60.0
    file_cpu_s: float = 10.0
    file_s: float = 60.0


@dataclass(frozen=True, slots=True)
class LoadedProject:
    """What a project's files declare, and what is wrong with them."""

    definitions: ProjectDefinitions
    problems: tuple[Problem, ...]
    files: Mapping[tuple[str, str], str]
    """(section, name) -> the file that declares it."""
    lines: Mapping[tuple[str, str], int]
    """(section, name) -> the line of its declaration; 0 or absent where it is not known."""

    def required(self) -> ProjectDefinitions:
        """Return the definitions. Raises ProjectError when a file has a problem."""
        if self.problems:
            raise ProjectError(
                f"{len(self.problems)} problems in project {self.definitions.name!r}", self.problems
            )
        return self.definitions


@dataclass(slots=True)
class _Declared:
    """The reports of all children of one load."""

    definitions: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {section: {} for section in SECTION_OF.values()}
    )
    files: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    lines: dict[tuple[str, str], int] = field(default_factory=dict)
    """The line of the last declaration of each name."""
    problems: list[Problem] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)


async def load_project(project: ProjectFolder, limits: LoadLimits | None = None) -> LoadedProject:
    """Read every file of *project*.

    Problems are returned and not raised, so that all of them are seen at once. Raises OSError when
    the host has no process to give.
    """
    # The Python files, of which only those with a module's name can be imported.
    paths, problems = files_below(project, CODE_FOLDERS, ".py")
    names = [project.relative(path) for path in paths]
    odd = [name for name in names if not MODULE_PATH.fullmatch(name)]
    problems += [
        Problem(name, 0, "its path needs the form of a module: letters, digits and underscores")
        for name in odd
    ]
    files = [name for name in names if name not in odd]
    declared = await _run_children(project, files, limits or LoadLimits())
    # The TOML files hold no code.
    models, model_problems = read_model_settings(project)
    for name, settings in models.items():
        declared.definitions["models"].setdefault(name, settings)
        declared.files["models", name].append(f"models/{name}.toml")
    policies, policy_problems = read_policies(project)
    schedules, schedule_lines, schedule_problems = read_schedules(
        project, declared.definitions["recipes"], declared.definitions["views"]
    )
    written = ProjectDefinitions(
        name=project.name,
        views=declared.definitions["views"],
        labels=declared.definitions["labels"],
        recipes=declared.definitions["recipes"],
        models=declared.definitions["models"],
        policies={name: tables for name, (tables, _) in policies.items()},
        schedules=schedules,
    )
    # What is applied comes back as canonical JSON, in which 1.0 is 1; so both look the same.
    definitions = parse_definitions(written.json)
    shown = {key: places[0] for key, places in declared.files.items()}
    shown |= {("policies", name): file for name, (_, file) in policies.items()}
    shown |= dict.fromkeys(schedule_lines, SCHEDULES_FILE)
    declared.lines |= schedule_lines
    # Together they must fit too.
    incomplete = bool(declared.problems)
    problems += [*declared.problems, *model_problems, *policy_problems]
    # A recipe that a schedule names may be in the file that failed.
    problems += [] if incomplete else schedule_problems
    problems += [] if incomplete else _monitoring_problems(project, definitions, shown, declared)
    problems += _twice(declared)
    problems += _missing_references(definitions, shown, declared.lines, incomplete)
    problems += leaks(definitions, shown, declared.lines)
    return LoadedProject(definitions, tuple(sorted(set(problems))), shown, declared.lines)


def _monitoring_problems(
    project: ProjectFolder,
    definitions: ProjectDefinitions,
    shown: Mapping[tuple[str, str], str],
    declared: _Declared,
) -> list[Problem]:
    places = {
        name: (shown["models", name], declared.lines.get(("models", name), 0))
        for name in definitions.models
    }
    sections = {name: definitions.section(name) for name in SECTIONS}
    return check_monitoring_names(project, sections, places)


async def _run_children(
    project: ProjectFolder, files: Sequence[str], limits: LoadLimits
) -> _Declared:
    """Run children until every file was looked at."""
    declared = _Declared()
    for _ in range(CHILDREN_MAX):
        if declared.done.issuperset(files):
            return declared
        # A new child runs every file again, because files import each other, but not those in
        # which a child ended.
        ended = await _run_child(project, files, limits, declared)
        if ended is None:
            return declared
        declared.broken.add(ended.file)
        declared.done.add(ended.file)
        declared.problems.append(ended)
    left = sorted(set(files) - declared.done)
    if left:
        text = f"not looked at, because {CHILDREN_MAX} files before it ended their process"
        declared.problems += [Problem(name, 0, text) for name in left]
    return declared


async def _run_child(
    project: ProjectFolder, files: Sequence[str], limits: LoadLimits, declared: _Declared
) -> Problem | None:
    """Run one child and add its report. Return the file in which it ended too early, if it did."""
    # Only the child holds the write ends, so its report and its traceback end when it does.
    (read_end, write_end), (trace_end, trace_write_end) = os.pipe(), os.pipe()
    try:
        arguments = [f"--report-fd={write_end}", f"--trace-fd={trace_write_end}"]
        arguments += [f"--root={project.root}", f"--file-cpu-s={limits.file_cpu_s}"]
        arguments += [f"--broken={name}" for name in sorted(declared.broken)]
        child = ChildProcess(
            "project.loading.child",
            [*limits.resources.to_arguments(), *arguments, "--", *files],
            (write_end, trace_write_end),
        )
    finally:
        os.close(write_end)
        os.close(trace_write_end)
    # Follow the report line by line.
    reader = asyncio.StreamReader(limit=REPORT_LINE_BYTES_MAX)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb")
    )
    # Whatever happens, this ends after the child.
    open_files: list[str] = []
    os.set_blocking(trace_end, False)
    with os.fdopen(trace_end, "rb", buffering=0) as trace:
        try:
            late = await _follow_report(reader, limits, declared, open_files)
            if late:
                child.terminate()
                await asyncio.wait({child.exited}, timeout=TRACE_S)
        finally:
            child.kill()
            await asyncio.wait({child.exited})
            transport.close()
        traceback = trace.read(TRACE_BYTES_MAX) or b""
    if late is None:
        return None
    if not open_files:
        raise ProjectError(
            "the process that loads the project's files did not start: "
            f"{late or describe_exit(child.exited.result())}"
        )
    file = open_files[-1]
    line = _line_in(traceback, f"{project.root}/{file}")
    return Problem(file, line, late or _how_it_ended(child.exited.result(), limits))


def _line_in(traceback: bytes, path: str) -> int:
    """Return the innermost line of *path* in a traceback of faulthandler; 0 when there is none."""
    wanted = path.encode("ascii", "backslashreplace")
    lines = (int(line) for file, line in TRACE_FRAME.findall(traceback) if file == wanted)
    return next(lines, 0)


async def _follow_report(
    reader: asyncio.StreamReader, limits: LoadLimits, declared: _Declared, open_files: list[str]
) -> str | None:
    """Read the report of one child.

    open_files  the files that it is in the middle of, the innermost last.

    Return None when the child came to its end, the reason when it was too late, and an empty text
    when it ended by itself before.
    """
    # Each line gives the child time for the next one.
    loop = asyncio.get_running_loop()
    seconds, since = limits.start_s, loop.time()
    while True:
        # Wait for the next line, for as long as one file may take.
        try:
            async with asyncio.timeout_at(since + seconds):
                line = await reader.readline()
        except TimeoutError:
            return f"not done after {seconds:g} s; a file only declares, so it may not wait or loop"
        except ValueError:
            return f"it declares more than {REPORT_LINE_BYTES_MAX // 2**20} MiB"
        if not line.endswith(b"\n"):
            return ""
        # What a file prints gives it no further time.
        report: dict[str, Any] = json.loads(line)
        if "printed" in report:
            sys.stderr.write(report["printed"])
            continue
        # It begins or ends a file, or it is the last.
        seconds, since = limits.file_s, loop.time()
        if "end" in report:
            return None
        if "doing" in report:
            open_files.append(report["doing"])
        elif "done" in report:
            open_files.pop()
            _add_report(report, declared)


def _add_report(report: Mapping[str, Any], declared: _Declared) -> None:
    file: str = report["done"]
    if file in declared.done:
        return  # an earlier child has reported it
    declared.done.add(file)
    problem = report["problem"]
    if problem:
        declared.problems.append(Problem(file, problem["line"], problem["text"]))
    for item in report["declared"]:
        section, name = SECTION_OF[item["kind"]], item["name"]
        declared.definitions[section].setdefault(name, item["definition"])
        declared.files[section, name].append(file)
        declared.lines[section, name] = item["line"]


def _how_it_ended(code: int, limits: LoadLimits) -> str:
    if code == -signal.SIGPROF:
        return (
            f"it used more than {limits.file_cpu_s:g} s of CPU time; a file only declares, so it "
            "may not loop"
        )
    if code == -signal.SIGXCPU:
        return (
            f"the files before it and this one used more than {limits.resources.cpu_s} s of CPU "
            "time together; a file only declares, so let the transform compute"
        )
    return f"it ended its process with {describe_exit(code)}"


def _twice(declared: _Declared) -> list[Problem]:
    """Return the names that two files, or one file twice, declare."""
    return [
        Problem(
            files[-1],
            0 if files[-1].endswith(".toml") else declared.lines[section, name],
            f"{section} {name!r} is declared a second time; {files[0]} has it already",
        )
        for (section, name), files in declared.files.items()
        if len(files) > 1
    ]


def _missing_references(
    definitions: ProjectDefinitions,
    files: Mapping[tuple[str, str], str],
    lines: Mapping[tuple[str, str], int],
    incomplete: bool,
) -> list[Problem]:
    """Return references to what no file declares.

    incomplete  whether a file failed, which may declare what is missing.
    """
    # Recipes name views by edition, and labels.
    problems = []
    hashes = {view["hash"] for view in definitions.views.values()}
    for name, recipe in definitions.recipes.items():
        for use in [*recipe["features"], *recipe["audit"]]:
            if use["view_hash"] not in hashes and not incomplete:
                text = (
                    f"recipe {name} reads view {use['view']!r} in an edition that no file has; "
                    "declare it at the top of a file below views/"
                )
                problems.append(Problem(files["recipes", name], lines["recipes", name], text))
        labels = recipe["labels"]
        if labels is not None and labels not in definitions.labels and not incomplete:
            text = f"recipe {name} learns from labels {labels!r}, which no file below labels/ has"
            problems.append(Problem(files["recipes", name], lines["recipes", name], text))
    # Models name a policy, of the project or of Turnout.
    for name, settings in definitions.models.items():
        policy = settings["default_policy"]
        if policy and policy not in definitions.policies and policy not in BUILT_IN:
            text = (
                f"default_policy = {policy!r} is no policy; there are "
                f"{', '.join(sorted({*definitions.policies, *BUILT_IN}))}"
            )
            line = lines.get(("models", name), 0)
            problems.append(Problem(files["models", name], line, text))
    return problems
