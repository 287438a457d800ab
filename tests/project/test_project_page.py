"""docs/project.md shows what works."""

import re
import tomllib
from pathlib import Path

from project.definitions import ProjectDefinitions
from project.environment import read_environment
from project.model_settings import checked_settings
from project.new_project import TEMPLATES
from tests.project.project_files import write_project

PAGE = (Path(__file__).parents[2] / "docs" / "project.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    """Return the blocks of the page that are fenced as *kind*."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_python_of_the_page_declares_a_view_and_a_model() -> None:
    """A reader copies it."""
    namespace: dict[str, object] = {}
    for text in blocks("python"):
        exec(text, namespace)
    assert {"usage", "churn"} <= namespace.keys()


def test_toml_of_the_page_is_an_environment_and_settings(tmp_path: Path) -> None:
    """The environment is a valid one, and so are the settings."""
    environment, settings = blocks("toml")
    project = write_project(tmp_path, {"environments/prod.toml": environment})
    assert read_environment(project, "prod").is_production
    assert checked_settings(tomllib.loads(settings))["holdout_bp"] == 500


def test_page_names_every_folder_of_a_project() -> None:
    """A folder that init writes is explained."""
    folders = {path.name for path in TEMPLATES.iterdir() if path.is_dir()} - {"tests"}
    assert {name for name in folders if f"`{name}/" in PAGE} == folders
    files = {"models", "schedules"}
    assert set(ProjectDefinitions.__dataclass_fields__) - {"name"} <= folders | files
