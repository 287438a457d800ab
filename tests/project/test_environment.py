"""Tests of finding a project and of its environments."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from project.environment import (
    production_problems,
    read_environment,
    require_production_rules,
)
from project.errors import ProjectError
from project.folder import find_project
from tests.project.project_files import write_project

PRODUCTION = """
mode = "production"
registry = "127.0.0.1:7001"
store = "unix:///run/store.socket"
token = "${env:SHOP_TOKEN}"
identities = "identities.json"

[sources.billing]
dsn = "${file:secrets/billing}"
"""


def test_project_is_found_from_every_folder_below(tmp_path: Path) -> None:
    """As git finds its checkout."""
    root = write_project(tmp_path / "shop").root
    below = root / "views" / "deep"
    below.mkdir()
    for start in (root, root / "views", below):
        found = find_project(start)
        assert found is not None
        assert (found.root, found.name, found.owner) == (root, "shop", "network-ds")
    assert find_project(tmp_path) is None
    named = find_project(tmp_path, str(root))
    assert named is not None
    assert named.root == root


def test_named_folder_must_be_a_project(tmp_path: Path) -> None:
    """A wrong --project must not be taken for none."""
    with pytest.raises(ProjectError, match=r"has no turnout\.toml"):
        find_project(tmp_path, str(tmp_path))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", r"has no table \[project\]"),
        ('[project]\nname = "shop"\nformat = 2', "has format = 2"),
        ('[project]\nname = "Shop"\nformat = 1', "name = 'Shop'"),
        ('[project]\nname = "shop"\nformat = 1\nowners = "a"', r"\['owners'\], which is not known"),
        ("[project", r"turnout\.toml: "),
    ],
)
def test_project_file_names_what_is_wrong(text: str, reason: str, tmp_path: Path) -> None:
    """The file is read before anything else."""
    with pytest.raises(ProjectError, match=reason):
        write_project(tmp_path, {"turnout.toml": text})


def test_environment_resolves_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When they are needed, so that a plan needs no secret."""
    project = write_project(tmp_path, {"environments/prod.toml": PRODUCTION})
    environment = read_environment(project, "prod")
    monkeypatch.delenv("SHOP_TOKEN", raising=False)
    with pytest.raises(ProjectError, match="variable SHOP_TOKEN is not set"):
        environment.resolved(environment.token, "token")
    monkeypatch.setenv("SHOP_TOKEN", "secret")
    assert environment.resolved(environment.token, "token") == "secret"
    with pytest.raises(ProjectError, match=r"\$\{file:secrets/billing\}, which cannot be read"):
        environment.connections()
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "billing").write_text("postgresql://host/billing\n")
    assert environment.connections() == {"billing": "postgresql://host/billing"}
    assert "secret" not in repr(environment)


def test_every_key_may_be_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address too; the rules of production look at what it stands for."""
    text = 'mode = "production"\nregistry = "${env:SHOP_HOST}:7001"\nstore = "${env:SHOP_STORE}"'
    project = write_project(tmp_path, {"environments/prod.toml": text})
    environment = read_environment(project, "prod")
    monkeypatch.setenv("SHOP_HOST", "127.0.0.1")
    monkeypatch.setenv("SHOP_STORE", "redis://store.example:6379")
    assert environment.value("registry") == "127.0.0.1:7001"
    problems = " ".join(map(str, production_problems(environment)))
    assert "store store.example is beyond loopback" in problems
    assert "registry_certificate" not in problems
    monkeypatch.delenv("SHOP_HOST")
    with pytest.raises(ProjectError, match=r"registry is \$\{env:SHOP_HOST\}, and the variable"):
        environment.value("registry")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('mod = "production"', r"\['mod'\] is not known"),
        ('mode = "prod"', 'mode = "prod"; it must be one of'),
        ("registry = 7001", "registry = 7001; it must be a text"),
        ('[sources]\nbilling = "x"', "sources must be tables"),
    ],
)
def test_environment_names_the_wrong_key(text: str, reason: str, tmp_path: Path) -> None:
    """A typing error must not be without effect."""
    project = write_project(tmp_path, {"environments/dev.toml": text})
    with pytest.raises(ProjectError, match=reason):
        read_environment(project)
    with pytest.raises(ProjectError, match=r"no environments/live\.toml; there are: dev"):
        read_environment(project, "live")


def committed(root: Path, prod: str) -> Path:
    """Write the project with this production environment and commit it."""
    write_project(root, {"environments/prod.toml": prod, "identities.json": "{}"})
    for arguments in (("init",), ("add", "."), ("commit", "-m", "one")):
        identity = ["-c", "user.name=dana", "-c", "user.email=dana@example.org"]
        subprocess.run(
            ["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True
        )
    return root


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_production_accepts_a_clean_project(tmp_path: Path) -> None:
    """References are no secrets, and loopback needs no TLS."""
    project = find_project(committed(tmp_path, PRODUCTION))
    assert project is not None
    require_production_rules(read_environment(project, "prod"))


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("127.0.0.1:7001", "control-host:7001", "registry control-host:7001 is beyond loopback"),
        (
            "[sources",
            'features = "push-host:7003"\n[sources',
            "features push-host:7003 is beyond loopback, and no features_certificate is named",
        ),
        ("unix:///run/store.socket", "redis://store:6379", "store store is beyond loopback"),
        ("${env:SHOP_TOKEN}", "abc", "token stands in the file"),
        (
            "${file:secrets/billing}",
            "postgresql://reader@db/billing",
            r"\[sources.billing\] connects to db without TLS",
        ),
        (
            "${file:secrets/billing}",
            "postgresql://reader:abc@db/billing?sslmode=verify-full",
            "a URL here has a password in it",
        ),
        ("${file:secrets/billing}", "host=db password=abc", "has its password in the file"),
        ("identities.json", "nobody.json", "identities = 'nobody.json' is no file"),
    ],
)
def test_production_refuses(before: str, after: str, reason: str, tmp_path: Path) -> None:
    """One rule each; development has none of them."""
    project = find_project(committed(tmp_path, PRODUCTION.replace(before, after)))
    assert project is not None
    with pytest.raises(ProjectError, match=reason):
        require_production_rules(read_environment(project, "prod"))
    assert production_problems(read_environment(project, "dev")) == []


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("file", ["views/_draft.py", "notes.md", "lib/deep/x.sql"])
def test_production_finds_a_password_in_every_tracked_file(file: str, tmp_path: Path) -> None:
    """A clone of the repository has the secret, also in files that Turnout does not read."""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("# one\nurl = 'redis://writer:abc@127.0.0.1:6379'\n")
    project = find_project(committed(tmp_path, PRODUCTION))
    assert project is not None
    (problem,) = production_problems(read_environment(project, "prod"))
    assert (problem.file, problem.line) == (file, 2)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_production_refuses_a_dirty_work_tree(tmp_path: Path) -> None:
    """The commit in the history would not be what was applied."""
    project = find_project(committed(tmp_path, PRODUCTION))
    assert project is not None
    (tmp_path / "plan.json").write_text("{}")
    require_production_rules(read_environment(project, "prod"))
    (tmp_path / "views" / "new.py").write_text("")
    with pytest.raises(ProjectError, match=r"1 files differ from the commit \(views/new\.py\)"):
        require_production_rules(read_environment(project, "prod"))
    (tmp_path / "views" / "new.py").unlink()
    (tmp_path / "turnout.toml").write_text((tmp_path / "turnout.toml").read_text() + "\n")
    with pytest.raises(ProjectError, match=r"1 files differ from the commit \(turnout\.toml\)"):
        require_production_rules(read_environment(project, "prod"))
    shutil.rmtree(tmp_path / ".git")
    with pytest.raises(ProjectError, match="in no git checkout"):
        require_production_rules(read_environment(project, "prod"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[notices.ops]\nurl = "ftp://x"', "begins with http"),
        ('[notices.ops]\nurl = "http://127.0.0.1:1"\nformat = "mail"', "webhook, alertmanager"),
        ('[notices.ops]\nurl = "http://127.0.0.1:1"\nseverity = "all"', "review, warning, page"),
        ('[notices.ops]\nurl = "http://127.0.0.1:1"\nuser = "x"', "user is not known"),
        ('[notices.OPS]\nurl = "http://127.0.0.1:1"', "the name is not known"),
        ("notices = 3", "must be tables"),
    ],
)
def test_wrong_target_of_notices_is_refused(text: str, words: str, tmp_path: Path) -> None:
    """With the file, the table and what the key may be."""
    project = write_project(tmp_path, {"environments/dev.toml": text})
    with pytest.raises(ProjectError, match=re.escape(words)):
        read_environment(project)


def test_production_refuses_secrets_and_plain_text_of_notices(tmp_path: Path) -> None:
    """A secret in a file of the repository is none, and http leaves this machine for nobody."""
    text = (
        'mode = "production"\n[notices.ops]\nurl = "http://hooks.example.org/x"\nsecret = "abc"\n'
    )
    project = write_project(tmp_path, {"environments/dev.toml": text})
    problems = [problem.text for problem in production_problems(read_environment(project))]
    assert any("secret of [notices.ops] stands in the file" in problem for problem in problems)
    assert any("[notices.ops] sends to hooks.example.org" in problem for problem in problems)
