"""Tests of the files that `turnout init` writes."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from project.environment import environment_names, read_environment
from project.errors import ProjectError
from project.folder import open_project
from project.loading.loader import load_project
from project.new_project import write_new_project

FIRST_FILES = {
    ".gitignore",
    ".gitlab-ci.yml",
    "README.md",
    "environments/dev.toml",
    "environments/prod.toml",
    "labels/_example.py",
    "models/_example.py",
    "models/_example.toml",
    "policies/_example.toml",
    "recipes/_example.py",
    "tests/test_project.py",
    "turnout.toml",
    "views/_example.py",
}


def test_new_project_has_every_file_in_short(tmp_path: Path) -> None:
    """Each is below 40 lines, and says what it is for in its first lines."""
    made = write_new_project(tmp_path / "shop", "shop", "network-ds")
    assert set(made.written) == FIRST_FILES
    project = open_project(made.root)
    assert (project.name, project.owner) == ("shop", "network-ds")
    assert environment_names(project) == ["dev", "prod"]
    assert read_environment(project, "prod").is_production
    for file in made.written:
        text = (made.root / file).read_text()
        assert "@" not in text.replace("@OWNER@", "").replace("@NAME@", "") or "@OWNER@" not in text
        assert len(text.splitlines()) < 40, file


def test_new_project_overwrites_nothing(tmp_path: Path) -> None:
    """A repository keeps its own files; a second init is refused."""
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ProjectError, match="has files"):
        write_new_project(tmp_path, "shop", "dana")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md"]
    made = write_new_project(tmp_path, "shop", "dana", into_existing=True)
    assert made.untouched == ("README.md",)
    assert (tmp_path / "README.md").read_text() == "mine"
    with pytest.raises(ProjectError, match="is a project already"):
        write_new_project(tmp_path, "shop", "dana", into_existing=True)
    with pytest.raises(ProjectError, match="is no name for a project"):
        write_new_project(tmp_path / "Shop", "Shop", "dana")
    assert not (tmp_path / "Shop").exists()


@pytest.mark.walk
def test_new_project_loads_as_it_is_and_its_examples_are_true(tmp_path: Path) -> None:
    """As it is, it declares nothing. Each example, copied as its text says, loads."""
    made = write_new_project(tmp_path / "shop", "shop", "network-ds")
    loaded = asyncio.run(load_project(open_project(made.root)))
    assert (loaded.problems, dict(loaded.files)) == ((), {})
    for folder in ("views", "labels", "recipes"):
        example = made.root / folder / "_example.py"
        text = example.read_text().replace("views._example", "views.example")
        (made.root / folder / "example.py").write_text(text.replace("labels._ex", "labels.ex"))
    for folder, name in (("models", "churn"), ("policies", "careful")):
        text = (made.root / folder / "_example.toml").read_text()
        (made.root / folder / f"{name}.toml").write_text(text)
    # The examples of a model say the same in TOML and in Python.
    in_toml = asyncio.run(load_project(open_project(made.root))).required().models["churn"]
    (made.root / "models" / "churn.toml").unlink()
    (made.root / "models" / "example.py").write_text(
        (made.root / "models" / "_example.py").read_text()
    )
    loaded = asyncio.run(load_project(open_project(made.root)))
    assert loaded.problems == ()
    assert loaded.definitions.models["churn"] == in_toml
    assert set(loaded.files) == {
        ("views", "customers"),
        ("labels", "churned"),
        ("recipes", "churn/candidate"),
        ("models", "churn"),
        ("policies", "careful"),
    }


@pytest.mark.walk
def test_tests_of_a_new_project_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the installed command, from another folder."""
    made = write_new_project(tmp_path / "shop", "shop", "network-ds")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    finished = subprocess.run(command, cwd=made.root, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
