"""A path that cannot be written is refused before anything is read, removed or trained."""

from pathlib import Path

import pytest

from tests.turnout.test_main import exit_code_of
from turnout.cli.arguments import check_new_file, check_new_folder
from turnout.errors import UsageError

WRITERS = [
    ["features", "forget", "C1", "--receipt", "{}"],
    ["report", "--plot", "{}.svg"],
    ["review", "--html", "{}"],
    ["review", "--markdown", "{}"],
    ["monitor", "export", "{}"],
    ["plan", "--out", "{}"],
    ["train", "churn", "--out", "{}"],
    ["versions", "export", "churn", "1", "--onnx", "--out", "{}"],
    ["rollout", "explain", "churn", "--png", "{}.png"],
    ["rollout", "plot", "churn", "--svg", "{}.svg"],
]


@pytest.mark.parametrize("line", WRITERS, ids=" ".join)
def test_path_is_checked_before_the_system_is_asked(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no system here: a command that asked it first would end with 3."""
    file = tmp_path / "a file"
    file.write_text("no folder")
    words = [word.format(file / "out") for word in line]
    assert exit_code_of([*words, "--folder", str(tmp_path)]) == 2
    assert str(file) in capsys.readouterr().err.replace("\n", "")


def test_file_needs_a_folder_that_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is no file."""
    check_new_file("--receipt", None)
    check_new_file("--receipt", tmp_path / "receipt.json")
    with pytest.raises(UsageError, match=r"--receipt .* is a folder; name a file in it"):
        check_new_file("--receipt", tmp_path)
    with pytest.raises(UsageError, match=r"the folder .* does not exist; make it first"):
        check_new_file("--receipt", tmp_path / "none" / "receipt.json")
    # Root may write everywhere, so the refusal is made here.
    monkeypatch.setattr("turnout.cli.arguments.os.access", lambda *_: False)
    with pytest.raises(UsageError, match="you may not write to the folder"):
        check_new_file("--receipt", tmp_path / "receipt.json")


def test_new_folder_is_not_there_and_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty name is the current folder, for which `.-2` is no advice."""
    check_new_folder("--out", tmp_path / "with" / "parents")
    with pytest.raises(UsageError, match=f"such as {tmp_path}-2"):
        check_new_folder("--out", tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("", ".", ".."):
        with pytest.raises(UsageError, match=r"such as (\.\./)?new-folder$"):
            check_new_folder("FOLDER", Path(name))
