"""Tests of loading a project's files in a child process."""

import asyncio
from pathlib import Path

import pytest

from host.child_process import ResourceLimits
from project.definitions import parse_definitions
from project.errors import ProjectError
from project.loading.loader import LoadLimits, load_project
from tests.project.project_files import FAST, LITTLE_CPU, RECIPE, USAGE, loaded, write_project

pytestmark = pytest.mark.walk

IMPORTS = "from pathlib import Path\nfrom lib.names import NAME\n"


def problems(root: Path, changes: dict[str, str], limits: LoadLimits | None = None) -> list[str]:
    """Return the problems of the small project with *changes*."""
    found = loaded(root, changes, limits)
    # Whatever is broken, the good files are read.
    assert "usage" in found.definitions.views
    return [str(problem) for problem in found.problems]


def test_project_gives_its_definitions(tmp_path: Path) -> None:
    """They survive their JSON, and the view and the recipe are rebuilt from it."""
    found = loaded(tmp_path)
    assert found.problems == ()
    definitions = parse_definitions(found.required().json)
    assert definitions.digest == found.definitions.digest
    view = definitions.view("usage")
    assert view.view_hash == definitions.views["usage"]["hash"]
    recipe = definitions.recipe("churn")
    assert recipe.contract.views[0].view == view
    assert view.source is not None
    assert view.source.location == "data/usage.parquet"
    assert recipe.labels is not None
    assert recipe.labels.value == "churned"
    assert definitions.models["churn"]["serving"]["deadline_ms_default"] == 80
    assert definitions.policies["careful"]["base"] == "standard"
    assert found.files["views", "usage"] == "views/usage.py"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1\ny = = 2", "views/bad.py:2: SyntaxError"),
        ("import os\nos.fork()", "views/bad.py:2: ForbiddenActError: os.fork"),
        ("import subprocess\nsubprocess.run(['ls'])", "views/bad.py:2: ForbiddenActError: subproc"),
        ("import os\nos.system('ls')", "views/bad.py:2: ForbiddenActError: os.system"),
        (
            "import socket\nsocket.create_connection(('127.0.0.1', 1))",
            "views/bad.py:2: ForbiddenActError: socket.getaddrinfo: a project's file may not use",
        ),
        ("open('made', 'w')", "views/bad.py:1: ForbiddenActError: open"),
        ("import os\nos._exit(7)", "views/bad.py: it ended its process with exit code 7"),
        ("raise SystemExit(3)", "views/bad.py:1: it ends the interpreter (SystemExit(3))"),
        ("x = 1\nwhile True: pass", "views/bad.py:2: it used more than 1 s of CPU time"),
        ("import time\n\ntime.sleep(60)", "views/bad.py:3: not done after 5 s"),
        ("import re\nre.match('(a+)+b', 'a' * 40)", "views/bad.py:2: it used more than 1 s of CPU"),
        (
            "import ctypes\nctypes.string_at(0)",
            "views/bad.py:2: it ended its process with SIGSEGV",
        ),
        (
            "hog = bytearray(1 << 40)",
            "views/bad.py:1: MemoryError: the files of a project may use",
        ),
        (
            "from features.views import View\n\nView(name='Bad', entities=(), features=(),"
            " ttl_ms=1, transform='')",
            "views/bad.py:3: ViewError: view name 'Bad'",
        ),
        (
            RECIPE.replace('"max_iter": 20', '"max_iter": float("nan")'),
            "views/bad.py: ValueError: Out of range float",
        ),
        (
            RECIPE.replace('"max_iter": 20', '"max_iter": object()'),
            "views/bad.py: TypeError: Object of type object is not JSON",
        ),
        (
            USAGE.replace("SELECT customer", "COPY source TO 'x'; SELECT customer"),
            "views/bad.py:4: ViewError: view 'usage': ",
        ),
        ("import nothing_here", "views/bad.py:1: ModuleNotFoundError: No module named 'nothing_"),
        (
            "import views.gone",
            "views/bad.py:1: ModuleNotFoundError: No module named 'views.gone'; the project has no "
            "file views/gone.py",
        ),
    ],
    ids=lambda value: value.split("\n")[-1][:24],
)
def test_broken_file_is_named_and_the_others_are_read(
    text: str, reason: str, tmp_path: Path
) -> None:
    """A file that loops or crashes ends its process; another process reads the rest."""
    limits = FAST if "not done after" in reason else LITTLE_CPU if "CPU" in reason else None
    (problem,) = problems(tmp_path, {"views/bad.py": text}, limits)
    assert problem.startswith(reason)
    assert not (tmp_path / "made").exists()


def test_file_that_uses_up_the_cpu_time_is_named_with_its_line(tmp_path: Path) -> None:
    """A loop in a function of another file is named where it is, and the rest is read."""
    changes = {
        "lib/slow.py": "def wait() -> None:\n    while True:\n        pass\n",
        "views/bad.py": "from lib.slow import wait\n\nwait()\n",
    }
    limits = LoadLimits(resources=ResourceLimits(memory_mb=2_048, cpu_s=3), file_s=240.0)
    found = asyncio.run(load_project(write_project(tmp_path, changes), limits))
    assert [str(problem) for problem in found.problems] == [
        "views/bad.py:3: the files before it and this one used more than 3 s of CPU time together; "
        "a file only declares, so let the transform compute"
    ]
    assert "usage" in found.definitions.views


def test_slow_machine_and_imported_files_use_up_no_cpu_time(tmp_path: Path) -> None:
    """A file that waits is not busy, and each file that it imports has CPU time of its own."""
    busy = "import time\nuntil = time.process_time() + 0.7\nwhile time.process_time() < until: 0\n"
    changes = {
        "lib/one.py": busy,
        "lib/two.py": busy,
        "views/good.py": "import time\nimport lib.one\nimport lib.two\ntime.sleep(1.2)\n",
    }
    assert problems(tmp_path, changes, LITTLE_CPU) == []


def test_printed_text_goes_to_standard_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where that is a file, which the process that loads a project may not write to."""
    assert problems(tmp_path, {"views/chatty.py": "print('rows', 3)\n"}) == []
    assert capfd.readouterr() == ("", "rows 3\n")


def test_several_broken_files_are_all_named(tmp_path: Path) -> None:
    """Also a file that imports a broken one, at the line of the import."""
    changes = {
        "views/a.py": "import os\nos._exit(1)",
        "views/b.py": "1 / 0",
        "views/c.py": "\n\nfrom views.b import x",
        "recipes/d.py": "from views.a import y",
    }
    found = problems(tmp_path, changes)
    assert [text.split(": ")[0] for text in found] == [
        "recipes/d.py:1",
        "views/a.py",
        "views/b.py:1",
        "views/c.py:3",
    ]
    assert "imports views/a.py, which is broken" in found[0]
    assert "imports views/b.py, which is broken" in found[3]


def test_files_that_import_each_other_are_named(tmp_path: Path) -> None:
    """Python says that one of them is only partially loaded."""
    changes = {
        "views/a.py": "from views.b import second\nfirst = 1",
        "views/b.py": "from views.a import first\nsecond = 2",
    }
    found = problems(tmp_path, changes)
    assert [text.split(": ")[0] for text in found] == ["views/a.py:1", "views/b.py:1"]
    assert "imports views/b.py, which is broken" in found[0]
    assert "circular import" in found[1]


@pytest.mark.parametrize("room", ["features", "stats", "training", "registry", "host", "project"])
def test_folder_with_a_room_name_hides_no_room(
    room: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even when the command runs in the project's folder."""
    monkeypatch.chdir(tmp_path)
    changes = {f"{room}/__init__.py": "raise RuntimeError('this is not the room')"}
    assert problems(tmp_path, changes) == []


def test_module_of_a_hidden_folder_has_a_way_out(tmp_path: Path) -> None:
    """The author sees why `features.mine` is not found, and where to put it."""
    (problem,) = problems(
        tmp_path, {"features/mine.py": "x = 1", "views/bad.py": "from features.mine import x"}
    )
    assert "move it below lib/" in problem


def test_files_share_code_below_lib(tmp_path: Path) -> None:
    """A long SQL text may lie beside the view."""
    changes = {
        "lib/names.py": "NAME = 'second'",
        "views/long.sql": "SELECT customer, event_time_ms, minutes, topups FROM source",
        "views/second.py": USAGE.replace('"usage"', "NAME")
        .replace(
            "from turnout",
            "from pathlib import Path\nfrom lib.names import NAME\nfrom turnout",
            1,
        )
        .replace(
            '"SELECT customer, event_time_ms, minutes, topups FROM source"',
            "Path(__file__).with_name('long.sql').read_text()",
        ),
    }
    found = loaded(tmp_path, changes)
    assert found.problems == ()
    assert set(found.definitions.views) == {"usage", "second"}


def test_name_that_is_declared_twice_is_a_problem(tmp_path: Path) -> None:
    """The project would depend on the order of its files."""
    (problem,) = problems(tmp_path, {"views/zweite.py": USAGE})
    assert problem == (
        "views/zweite.py:4: views 'usage' is declared a second time; views/usage.py has it already"
    )


def test_recipe_of_an_undeclared_view_is_a_problem(tmp_path: Path) -> None:
    """A view that only the recipe has could not be ingested."""
    hidden = RECIPE.replace("from views.usage import usage", "import lib.usage")
    changes = {
        "recipes/churn.py": hidden.replace("view=usage", "view=lib.usage.usage"),
        "lib/usage.py": USAGE.replace("86_400_000", "1_000"),
    }
    (problem,) = problems(tmp_path, changes)
    assert problem.startswith("recipes/churn.py:6: recipe churn/candidate reads view 'usage' in a")


def test_symbolic_link_out_of_the_project_is_refused(tmp_path: Path) -> None:
    """The revision would not hold what the project depends on."""
    outside = tmp_path / "outside.py"
    outside.write_text("x = 1")
    root = tmp_path / "shop"
    (root / "views").mkdir(parents=True)
    (root / "views" / "linked.py").symlink_to(outside)
    (root / "recipes").symlink_to(tmp_path)
    found = loaded(root, {"recipes/churn.py": None})
    assert [(problem.file, "out of the project" in problem.text) for problem in found.problems] == [
        ("recipes", True),
        ("views/linked.py", True),
    ]
    with pytest.raises(ProjectError, match=r"2 problems in project 'shop'\n  recipes: "):
        found.required()


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("models/churn.toml", 'owner = "a"', "models/churn.toml: purpose = None"),
        (
            "models/other.toml",
            'owner = "a"\npurpose = "b"\nscore_meaning = "c"\n[serving]\nrows_max = "many"',
            "models/other.toml: serving.rows_max = 'many'; it must be of type int",
        ),
        (
            "models/other.toml",
            'owner = "a"\npurpose = "b"\nscore_meaning = "c"\n[serving]\nrows = 1',
            "models/other.toml: serving.rows is not known",
        ),
        (
            "models/other.toml",
            'owner = "a"\npurpose = "b"\nscore_meaning = "c"\nholdout_bp = 10001',
            "models/other.toml: holdout_bp = 10001",
        ),
        (
            "models/other.toml",
            'owner = "a"\npurpose = "b"\nscore_meaning = "c"\ndefault_policy = "brave"',
            "models/other.toml: default_policy = 'brave' is no policy; there are careful",
        ),
        (
            "models/other.toml",
            'owner = "a"\npurpose = "b"\nscore_meaning = "c"\n[serving]\ndefault_score = nan',
            "models/other.toml: serving.default_score = nan; it must be finite",
        ),
        ("models/other.toml", "owner = ", "models/other.toml: Invalid value"),
        ("policies/b.toml", 'name = "b"\nbase = "none"', "policies/b.toml: base 'none' is not"),
        (
            "policies/b.toml",
            'name = "careful"\nbase = "standard"',
            "policies/careful.toml: there is a policy 'careful' already",
        ),
    ],
)
def test_broken_toml_file_is_named(name: str, text: str, reason: str, tmp_path: Path) -> None:
    """With the key and what it must be."""
    (problem,) = problems(tmp_path, {name: text})
    assert problem.startswith(reason)


PYTHON_MODEL = """
from turnout.define import Model

churn = Model(
    name="churn",
    owner="network-ds",
    purpose="Whom the retention team calls first.",
    score_meaning="Probability that the customer leaves within 30 days.",
    holdout_bp=500,
    default_policy="careful",
    serving={"deadline_ms_default": 80, "default_score": 0.5},
)
"""


def test_model_in_python_says_the_same_as_in_toml(tmp_path: Path) -> None:
    """One implementation is behind both."""
    in_toml = loaded(tmp_path / "toml")
    in_python = loaded(
        tmp_path / "python", {"models/churn.toml": None, "models/churn.py": PYTHON_MODEL}
    )
    assert in_python.problems == ()
    assert in_python.definitions.digest == in_toml.definitions.digest
    assert in_python.files["models", "churn"] == "models/churn.py"
    assert in_python.lines["models", "churn"] == 4


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        (
            "models/churn.py",
            PYTHON_MODEL,
            "models/churn.toml: models 'churn' is declared a second time; models/churn.py has it",
        ),
        (
            "models/other.py",
            PYTHON_MODEL.replace('"churn"', '"other"').replace("500", "-1"),
            "models/other.py:4: ProjectError: model 'other': holdout_bp = -1; it is a whole number",
        ),
        (
            "models/other.py",
            PYTHON_MODEL.replace('"churn"', '"other"').replace("default_score", "score"),
            "models/other.py:4: ProjectError: model 'other': serving.score is not known; the fiel",
        ),
        (
            "models/other.py",
            PYTHON_MODEL.replace('"churn"', '"a b"'),
            "models/other.py:4: ProjectError: model 'a b': its name must match",
        ),
        (
            "models/other.py",
            PYTHON_MODEL.replace('"churn"', '"other"').replace("careful", "brave"),
            "models/other.py:4: default_policy = 'brave' is no policy; there are careful",
        ),
    ],
)
def test_wrong_model_in_python_is_named(
    file: str, text: str, expected: str, tmp_path: Path
) -> None:
    """A model that two files declare is an error that names both."""
    (problem,) = problems(tmp_path, {file: text})
    assert problem.startswith(expected)
