"""Children in a sandbox: what they see, what they answer, and how each end is reported."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from host.sandbox import run
from host.sandbox.run import (
    Isolation,
    NoSandboxError,
    SandboxError,
    SandboxLimits,
    SandboxTask,
    choose_isolation,
    inside_path,
    run_in_sandbox,
)

pytestmark = pytest.mark.walk

LIMITS = SandboxLimits(memory_mb=1_500, cpu_s=20, seconds=60, temp_mb=16, answer_bytes=1_000_000)


def ask(isolation: Isolation, files: dict[str, Path] | None = None, **request: object) -> bytes:
    """Run tests.host.sandbox.task with *request*."""
    task = SandboxTask(
        module="tests.host.sandbox.task",
        packages=("tests",),
        request=json.dumps(request).encode(),
        files=files or {},
    )
    return run_in_sandbox(task, LIMITS, isolation)


@pytest.fixture(params=[Isolation.BUBBLEWRAP, Isolation.NAMESPACES])
def isolation(request: pytest.FixtureRequest) -> Isolation:
    """Each way to isolate a child. CI has both, so neither is skipped."""
    chosen: Isolation = request.param
    assert run._trial(chosen) is None
    return chosen


def test_child_sees_python_and_nothing_else(
    isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No home, no process, and no variable of the parent."""
    monkeypatch.setenv("TURNOUT_TOKEN", "secret")
    seen = json.loads(ask(isolation, do="look"))
    assert not {"proc", "sys", "var", "run", "home", "opt"} & set(seen["root"])
    assert "secret" not in str(seen)
    assert seen["environment"]["HOME"] == "/tmp"
    assert seen["pid"] < 10


def test_child_computes_with_numpy(isolation: Isolation) -> None:
    """BLAS gives the bits that it gives here: the same library runs on one thread."""
    rows = np.arange(12.0).reshape(3, 4)
    assert ask(isolation, do="multiply") == (rows @ rows.T).tobytes()


def test_child_reads_the_file_that_it_is_given(isolation: Isolation, tmp_path: Path) -> None:
    """The file has another path inside, and its neighbours are not there."""
    (tmp_path / "model.bin").write_bytes(b"model")
    (tmp_path / "other.bin").write_bytes(b"other")
    files = {"/model/model.bin": tmp_path / "model.bin"}
    assert ask(isolation, files, do="read", path="/model/model.bin") == b"model"
    for path in ("/model/other.bin", str(tmp_path / "other.bin")):
        with pytest.raises(SandboxError, match="FileNotFoundError"):
            ask(isolation, files, do="read", path=path)


def test_child_runs_from_a_checkout_below_tmp(
    isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child's own /tmp does not hide the checkout, and it cannot write into it."""
    here = run._rooms()
    with tempfile.TemporaryDirectory(dir=run.TEMP) as folder:
        shutil.copytree(here / "host", Path(folder) / "host")
        task = Path("tests", "host", "sandbox", "task.py")
        (Path(folder) / task).parent.mkdir(parents=True)
        for file in (task, *(package / "__init__.py" for package in task.parents[:-1])):
            shutil.copy(here / file, Path(folder) / file)
        monkeypatch.setattr(run, "_rooms", lambda: Path(folder))
        assert json.loads(ask(isolation, do="look"))["environment"]["HOME"] == run.TEMP
        for path in (Path(folder) / task, Path(folder) / "host" / "new.py"):
            with pytest.raises(SandboxError, match="Read-only file system"):
                ask(isolation, do="write", path=str(path))


def test_answer_that_is_too_large_is_refused(isolation: Isolation) -> None:
    """The parent never holds more than the limit."""
    assert len(ask(isolation, do="fill", bytes=1_000_000)) == 1_000_000
    with pytest.raises(SandboxError, match="1000001 bytes, 1000000 at most while doing fill"):
        ask(isolation, do="fill", bytes=1_000_001)


def test_exception_of_the_module_is_the_problem(isolation: Isolation) -> None:
    """The user reads its text."""
    with pytest.raises(SandboxError, match="ValueError: nothing known of that"):
        ask(isolation, do="that")


def test_child_without_isolation_has_limits(tmp_path: Path) -> None:
    """It reads what its user may, in a temporary folder as home, without the environment."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert inside_path(Isolation.NONE, "/model", path) == str(path)
    assert ask(Isolation.NONE, do="read", path=str(path)) == b"content"
    environment = json.loads(ask(Isolation.NONE, do="look"))["environment"]
    assert set(environment) - {"LC_CTYPE"} <= {
        *(name for name in os.environ if name.startswith("OPENBLAS_")),
        *("PATH", "HOME", "TMPDIR", "LANG", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
        *("LOKY_MAX_CPU_COUNT", "MPLCONFIGDIR"),
    }


def test_host_without_a_sandbox_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what was tried, and what to install."""
    complaints = {Isolation.BUBBLEWRAP: "bwrap is not installed", Isolation.NAMESPACES: "refused"}
    monkeypatch.setattr(run, "_trial", complaints.__getitem__)
    with pytest.raises(NoSandboxError, match=r"bwrap is not installed; .*: refused\).*apt install"):
        choose_isolation()


def test_namespaces_stand_in_for_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that runs is taken."""
    assert choose_isolation() is Isolation.BUBBLEWRAP
    trials = {Isolation.BUBBLEWRAP: "bwrap is not installed", Isolation.NAMESPACES: None}
    monkeypatch.setattr(run, "_trial", trials.__getitem__)
    assert choose_isolation() is Isolation.NAMESPACES
